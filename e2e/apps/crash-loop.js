// Ends with code 7 soon after every start.
setTimeout(() => process.exit(7), 50);
