//! Which environment variables run code: who sets one of them decides what a process does, as who
//! deploys.

/// Variables by which an interpreter, the loader or PM2 runs something else, or looks for it
/// elsewhere. In lower case.
const NAMES: &[&str] = &[
    // Node.js
    "node_options",
    "node_path",
    "node_repl_external_module",
    "node_compile_cache",
    "electron_run_as_node",
    // Where programs, and files that are run by them, are looked for
    "path",
    "home",
    "gconv_path",
    "openssl_conf",
    "openssl_engines",
    "openssl_modules",
    // Shells
    "bash_env",
    "env",
    "shellopts",
    "bashopts",
    "ps4",
    "prompt_command",
    "zdotdir",
    // Other interpreters
    "rubyopt",
    "rubylib",
    "perl5opt",
    "perl5lib",
    "perl5db",
    "perllib",
    "classpath",
    "java_tool_options",
    "jdk_java_options",
    "_java_options",
    "dotnet_startup_hooks",
    "phprc",
    "php_ini_scan_dir",
    "lua_init",
    "lua_path",
    "lua_cpath",
    // PM2
    "current_conf",
    "interpreter_args",
    "post_update",
    "pmx",
    "pmx_module",
];

/// The same of all that begin so. In lower case.
const BEGINNINGS: &[&str] = &[
    "ld_",
    "dyld_",
    "python",
    "bun_",
    "deno_",
    "ts_node_",
    "tsx_",
    "npm_config_",
    "node_config",
    "git_",
    "gem_",
    "bundle_",
    "coreclr_",
    // What PM2 keeps of a process, and its own
    "pm2_",
    "pm_",
    "axm_",
    "exec_",
    "_pm2",
];

/// Whether a variable of this name lets who sets it run code of their own. Letters may be large
/// or small: some programs make no difference.
///
/// It knows the interpreters, loaders and tools in use with PM2; an application can have variables
/// of its own that do the same.
pub fn loads_code(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    NAMES.contains(&name.as_str()) || BEGINNINGS.iter().any(|begin| name.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_run_code_are_known() {
        for name in [
            "NODE_OPTIONS",
            "node_options",
            "NODE_PATH",
            "NODE_REPL_EXTERNAL_MODULE",
            "LD_PRELOAD",
            "DYLD_INSERT_LIBRARIES",
            "PATH",
            "PYTHONSTARTUP",
            "PYTHONPATH",
            "RUBYOPT",
            "PERL5LIB",
            "BASH_ENV",
            "ENV",
            "GCONV_PATH",
            "BUN_OPTIONS",
            "TS_NODE_PROJECT",
            "npm_config_script_shell",
            "NPM_CONFIG_PREFIX",
            "GIT_SSH_COMMAND",
            "PM2_HOME",
            "pm_exec_path",
            "axm_options",
            "exec_interpreter",
        ] {
            assert!(loads_code(name), "{name}");
        }
    }

    #[test]
    fn variables_of_applications_are_not_among_them() {
        for name in [
            "PORT",
            "NODE_ENV",
            "NODE_EXTRA_CA_CERTS",
            "SSL_CERT_FILE",
            "LOG_LEVEL",
            "DATABASE_URL",
            "PATHS",
            "ENVIRONMENT",
            "GITHUB_TOKEN",
            "TZ",
            "",
        ] {
            assert!(!loads_code(name), "{name}");
        }
    }

    #[test]
    fn the_lists_are_in_lower_case() {
        for word in NAMES.iter().chain(BEGINNINGS) {
            assert_eq!(*word, word.to_ascii_lowercase());
        }
    }
}
