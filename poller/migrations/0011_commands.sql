-- Commands by the PM2 that they were sent to, and by their server, the newest last.
ALTER TABLE commands ADD COLUMN pm2_home TEXT;
CREATE INDEX commands_by_server ON commands (server, seq);

-- Until now the summary alone told: '…; pm2_home: /home/web/.pm2; save: true'. A directory's name
-- may have a semicolon; what follows it can be one thing only.
UPDATE commands SET pm2_home = substr(summary, instr('; ' || summary, '; pm2_home: ') + 10)
    WHERE instr('; ' || summary, '; pm2_home: ') > 0;
UPDATE commands SET pm2_home = substr(pm2_home, 1, length(pm2_home) - 12)
    WHERE pm2_home LIKE '%; save: true';

-- A ratio was kept as bytes.
UPDATE OR IGNORE metrics SET unit = '' WHERE name = 'heap_usage' AND unit = 'bytes';
