//! What installs and builds: npm, pnpm and yarn by their lock files, and TypeScript. Packages lie
//! in the repository, so that nothing is fetched.

use serde_json::json;

use crate::stage::{Repo, Stage};

const SERVER: &str = "const greet = require('greet');\n\
    require('http').createServer((q, r) => r.end(greet)).listen(process.env.PORT);\n";
const GREET: &str = r#"{"name":"greet","version":"1.0.0","main":"index.js"}"#;

fn with_lock(manager: &str, file: &str, lock: &str) -> Repo {
    let package = format!(
        r#"{{"name":"x","version":"1.0.0","scripts":{{"start":"node server.js","build":"node -e \"require('fs').writeFileSync('built', '{manager}')\""}},"dependencies":{{"greet":"file:./greet"}}}}"#
    );
    Repo::new(&[
        ("package.json", &package),
        (file, lock),
        ("server.js", SERVER),
        ("greet/package.json", GREET),
        ("greet/index.js", &format!("module.exports = 'by {manager}'")),
    ])
}

#[tokio::test]
async fn npm_pnpm_and_yarn_install_what_their_lock_file_says() {
    let stage = Stage::new().await;
    let modules = e2e::setup::here().join("npm/node_modules");
    stage.link_program("pnpm", &modules.join("pnpm/bin/pnpm.cjs"));
    stage.link_program("yarn", &modules.join("yarn/bin/yarn.js"));
    let npm = r#"{"name":"x","version":"1.0.0","lockfileVersion":3,"packages":{"":{"name":"x","version":"1.0.0","dependencies":{"greet":"file:./greet"}},"greet":{"version":"1.0.0"},"node_modules/greet":{"resolved":"greet","link":true}}}"#;
    let pnpm = "lockfileVersion: '9.0'\n\nsettings:\n  autoInstallPeers: true\n  excludeLinksFromLockfile: false\n\nimporters:\n\n  .:\n    dependencies:\n      greet:\n        specifier: file:./greet\n        version: file:greet\n\npackages:\n\n  greet@file:greet:\n    resolution: {directory: greet, type: directory}\n\nsnapshots:\n\n  greet@file:greet: {}\n";
    let yarn = "# yarn lockfile v1\n\n\n\"greet@file:./greet\":\n  version \"1.0.0\"\n";
    for (manager, file, lock) in [
        ("npm", "package-lock.json", npm),
        ("pnpm", "pnpm-lock.yaml", pnpm),
        ("yarn", "yarn.lock", yarn),
    ] {
        let repo = with_lock(manager, file, lock);
        let done = stage.deploy("a", json!({"repository": repo.url()})).await;
        let id = done["id"].as_str().unwrap();
        let log =
            stage.client.get(&format!("/api/slots/a/deployments/{id}/log")).await.unwrap().text;
        assert_eq!(done["status"], "healthy", "{manager}: {log}");
        assert!(log.contains(&format!("==> {manager} ")), "{log}");
        assert_eq!(stage.get("a", "/").await.unwrap(), format!("by {manager}"));
        let built = stage.root().join("releases/a").join(id).join("built");
        assert_eq!(std::fs::read_to_string(built).unwrap(), manager);
        // One that does not fit package.json is refused by its manager, not mended in silence.
        let package = r#"{"name":"x","version":"1.0.0","dependencies":{"greet":"file:./greet","other":"file:./other"}}"#;
        repo.commit(&[
            ("package.json", package),
            ("other/package.json", r#"{"name":"other","version":"1.0.0"}"#),
        ]);
        let failed = stage.fails("a", json!({"repository": repo.url()})).await;
        assert!(
            failed["error"].as_str().unwrap().contains("ended with code"),
            "{manager}: {failed:#}"
        );
    }
}

#[tokio::test]
async fn typescript_is_built_and_runs() {
    let stage = Stage::new().await;
    let tsc = e2e::setup::here().join("npm/node_modules/typescript/bin/tsc").display().to_string();
    let config = r#"{"compilerOptions":{"outDir":"dist","module":"commonjs","target":"es2020","strict":true,"types":[],"lib":["es2020"]},"include":["src"]}"#;
    let package = r#"{"name":"x","version":"1.0.0","scripts":{"start":"node dist/server.js"}}"#;
    let source = "declare const require: any;\ndeclare const process: any;\n\
        interface Greeting { text: string }\nconst greeting: Greeting = { text: 'typed' };\n\
        require('http').createServer((_: unknown, r: any) => r.end(greeting.text)).listen(process.env.PORT);\n";
    let repo = Repo::new(&[
        ("package.json", package),
        ("tsconfig.json", config),
        ("src/server.ts", source),
    ]);
    let done = stage
        .deploy("a", json!({"repository": repo.url(), "build": ["node", tsc, "-p", "."]}))
        .await;
    assert_eq!(done["status"], "healthy", "{done:#}");
    assert_eq!(stage.get("a", "/").await.unwrap(), "typed");
    // What the compiler does not take is told with its own words, and what ran runs on.
    repo.commit(&[("src/server.ts", "const wrong: number = 'text';\n")]);
    let failed = stage
        .fails("a", json!({"repository": repo.url(), "build": ["node", tsc, "-p", "."]}))
        .await;
    assert!(failed["last_lines"].to_string().contains("TS2322"), "{failed:#}");
}
