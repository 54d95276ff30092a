//! What runs a release: found in its package.json, or given. Node.js is run directly, not
//! through npm and a shell; where only a shell understands the `start` script, npm runs it.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::env::{self, Env};
use super::words;
use crate::named;

/// A program with its arguments, as PM2 is to run it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The file that is run.
    pub script: PathBuf,
    /// Run by Node.js, with these flags; a program of its own unless set.
    pub node: Option<Vec<String>>,
    /// Arguments.
    pub args: Vec<String>,
    /// Variables that stood before the command.
    pub env: Env,
    /// Where it is run.
    pub cwd: PathBuf,
}

impl Start {
    /// For people: `node server.js`. Arguments are not shown: they may hold secrets.
    pub fn shown(&self) -> String {
        let script = self.script.strip_prefix(&self.cwd).unwrap_or(&self.script).display();
        let node = if self.node.is_some() { "node " } else { "" };
        let more =
            !self.args.is_empty() || self.node.as_ref().is_some_and(|flags| !flags.is_empty());
        format!("{node}{script}{}", if more { " …" } else { "" })
    }
}

/// The part of package.json that counts.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Package {
    main: Option<String>,
    scripts: std::collections::BTreeMap<String, String>,
}

impl Package {
    /// Reads the folder's package.json; `None` where there is none.
    ///
    /// # Errors
    /// It is not what it should be.
    pub fn read(folder: &Path) -> Result<Option<Self>, String> {
        let file = match named::read(&folder.join("package.json")) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("package.json cannot be read: {error}")),
        };
        let mut text = String::new();
        file.take(1 << 20)
            .read_to_string(&mut text)
            .map_err(|error| format!("package.json cannot be read: {error}"))?;
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| format!("package.json makes no sense: {error}"))
    }

    /// Whether it has a script of this name.
    pub fn has_script(&self, name: &str) -> bool {
        self.scripts.contains_key(name)
    }
}

/// What a program is found by.
pub struct Finder<'a> {
    /// The release's folder: what is run lies within.
    pub release: &'a Path,
    /// The application's folder within it.
    pub folder: &'a Path,
    /// The PATH.
    pub path: &'a str,
}

impl Finder<'_> {
    /// What runs the release: `given`, or what its package.json says.
    ///
    /// # Errors
    /// Nothing does, in words.
    pub fn find(&self, given: Option<&[String]>) -> Result<Start, String> {
        if let Some(words) = given {
            return self.command(words, Env::new()).map_err(|error| format!("start: {error}"));
        }
        let package = Package::read(self.folder)?;
        if let Some(package) = &package
            && let Some(script) = package.scripts.get("start")
        {
            let hooks = package.has_script("prestart") || package.has_script("poststart");
            let direct = || {
                let mut words = words::split(script).ok()?;
                let env = leading_env(&mut words)?;
                self.command(&words, env).ok()
            };
            if let Some(start) = (!hooks).then(direct).flatten() {
                return Ok(start);
            }
            // What a shell would have to read, npm gives to one.
            let words = ["npm", "run", "start"].map(str::to_owned);
            return self.command(&words, Env::new());
        }
        let main = package.and_then(|package| package.main);
        let named = main.is_some();
        let candidates = [main, Some("server.js".to_owned()), Some("index.js".to_owned())];
        for candidate in candidates.into_iter().flatten() {
            for name in
                [candidate.clone(), format!("{candidate}.js"), format!("{candidate}/index.js")]
            {
                if let Ok(script) = self.within(&self.folder.join(&name)) {
                    return Ok(self.by_node(script, Vec::new(), Vec::new(), Env::new()));
                }
            }
        }
        Err(if named {
            "package.json has no start script, and its main is not there".to_owned()
        } else {
            "nothing says what to start: package.json has neither a start script nor main, and \
             there is no server.js or index.js; give it as \"start\""
                .to_owned()
        })
    }

    fn by_node(&self, script: PathBuf, flags: Vec<String>, args: Vec<String>, env: Env) -> Start {
        Start { script, node: Some(flags), args, env, cwd: self.folder.to_owned() }
    }

    fn command(&self, words: &[String], env: Env) -> Result<Start, String> {
        let Some((program, args)) = words.split_first() else {
            return Err("is empty".to_owned());
        };
        if program == "node" {
            return self.node(args, env);
        }
        let found = if program.contains('/') {
            self.within(&self.folder.join(program))?
        } else {
            self.tool(program)?
        };
        let args = args.to_vec();
        // A script of Node.js is run by it, so that no `env` stands between PM2 and it.
        if is_node_script(&found) {
            return Ok(self.by_node(found, Vec::new(), args, env));
        }
        Ok(Start { script: found, node: None, args, env, cwd: self.folder.to_owned() })
    }

    fn node(&self, words: &[String], env: Env) -> Result<Start, String> {
        let mut flags = Vec::new();
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            match word.as_str() {
                "-e" | "--eval" | "-p" | "--print" | "-" | "-i" | "--interactive" => {
                    return Err(format!("node {word} runs no file"));
                }
                "-r"
                | "--require"
                | "--import"
                | "--loader"
                | "--experimental-loader"
                | "-C"
                | "--env-file" => {
                    flags.push(word.clone());
                    flags.extend(rest.next().cloned());
                }
                flag if flag.starts_with('-') => flags.push(word.clone()),
                file => {
                    let path = self.folder.join(file);
                    let candidates =
                        [path.clone(), path.with_added_extension("js"), path.join("index.js")];
                    let found = candidates.iter().find_map(|path| self.within(path).ok());
                    let script = match found {
                        Some(script) => script,
                        None => self.within(&path)?,
                    };
                    return Ok(self.by_node(script, flags, rest.cloned().collect(), env));
                }
            }
        }
        Err("node is given no file".to_owned())
    }

    /// A file within the release, links followed.
    fn within(&self, path: &Path) -> Result<PathBuf, String> {
        let name = path.strip_prefix(self.folder).unwrap_or(path).display().to_string();
        let real = path.canonicalize().map_err(|_| format!("{name:?} is not there"))?;
        let release = self.release.canonicalize().map_err(|error| error.to_string())?;
        if !real.starts_with(&release) {
            return Err(format!("{name:?} leads out of the release"));
        }
        if !real.is_file() {
            return Err(format!("{name:?} is not a file"));
        }
        Ok(real)
    }

    /// A tool of the application, from the folder upwards to the release, or of the host.
    fn tool(&self, name: &str) -> Result<PathBuf, String> {
        for folder in self.folder.ancestors().take_while(|folder| folder.starts_with(self.release))
        {
            let path = folder.join("node_modules/.bin").join(name);
            if path.exists() {
                return self.within(&path);
            }
        }
        on_path(name, self.path).ok_or_else(|| format!("there is no program {name:?}"))
    }
}

/// A program on the PATH, links followed no further than that.
pub fn on_path(name: &str, path: &str) -> Option<PathBuf> {
    if name.is_empty() || name.contains('/') {
        return None;
    }
    std::env::split_paths(path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|file| {
            use std::os::unix::fs::PermissionsExt;
            file.metadata()
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
}

/// Takes `NAME=value` words off the front; `None` when one must not be set.
fn leading_env(words: &mut Vec<String>) -> Option<Env> {
    let mut taken = Env::new();
    if words.first().is_some_and(|word| word == "cross-env") {
        words.remove(0);
    }
    while let Some((name, value)) = words.first().and_then(|word| word.split_once('=')) {
        env::name_is_allowed(name).ok()?;
        taken.insert(name.to_owned(), value.to_owned());
        words.remove(0);
    }
    Some(taken)
}

fn is_node_script(path: &Path) -> bool {
    let mut head = [0u8; 128];
    if !path.is_file() {
        return false;
    }
    let Ok(read) = fs::File::open(path).and_then(|mut file| file.read(&mut head)) else {
        return false;
    };
    let first = head[..read].split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(first);
    let Some(line) = line.strip_prefix("#!") else { return false };
    let words: Vec<&str> = line.split_whitespace().collect();
    matches!(&words[..], [env, "node"] if env.ends_with("/env"))
        || matches!(&words[..], [node] if node.ends_with("/node"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(files: &[(&str, &str)], given: Option<&[&str]>) -> Result<Start, String> {
        let release = tempfile::tempdir().unwrap();
        let root = release.path().canonicalize().unwrap();
        for (name, text) in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            if let Some(target) = text.strip_prefix("-> ") {
                std::os::unix::fs::symlink(target, path).unwrap();
            } else {
                fs::write(path, text).unwrap();
            }
        }
        let path = std::env::var("PATH").unwrap();
        let finder = Finder { release: &root, folder: &root, path: &path };
        let given: Option<Vec<String>> =
            given.map(|words| words.iter().map(|word| (*word).to_owned()).collect());
        finder.find(given.as_deref())
    }

    fn full(start: &Start) -> String {
        let script = start.script.strip_prefix(&start.cwd).unwrap_or(&start.script);
        let node = start.node.iter().map(|_| "node".to_owned());
        node.chain(start.node.iter().flatten().cloned())
            .chain([script.display().to_string()])
            .chain(start.args.iter().cloned())
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn package(start: &str) -> String {
        serde_json::json!({"scripts": {"start": start}}).to_string()
    }

    #[test]
    fn a_start_script_of_node_is_run_without_npm_and_shell() {
        let script = package("MODE=x node --max-old-space-size=64 -r ./pre.js server --port 5");
        let start = find(&[("package.json", &script), ("server.js", "")], None).unwrap();
        assert_eq!(full(&start), "node --max-old-space-size=64 -r ./pre.js server.js --port 5");
        assert_eq!(start.env["MODE"], "x");
    }

    #[test]
    fn a_tool_of_the_application_is_run_directly() {
        let files = [
            ("package.json", &*package("serve --all")),
            ("node_modules/serve/bin.js", "#!/usr/bin/env node\n"),
            ("node_modules/.bin/serve", "-> ../serve/bin.js"),
        ];
        let start = find(&files, None).unwrap();
        assert_eq!(full(&start), "node node_modules/serve/bin.js --all");
    }

    #[test]
    fn what_needs_a_shell_is_left_to_npm() {
        for script in ["node a.js && node b.js", "node a.js | cat", "PORT=1 node a.js", "node -e 1"]
        {
            let start = find(&[("package.json", &package(script)), ("a.js", "")], None).unwrap();
            assert!(full(&start).ends_with("run start"), "{}", full(&start));
        }
    }

    #[test]
    fn main_and_the_usual_names_are_found() {
        let main = r#"{"main": "lib/app"}"#;
        let start = find(&[("package.json", main), ("lib/app.js", "")], None).unwrap();
        assert_eq!(full(&start), "node lib/app.js");
        assert_eq!(find(&[("index.js", "")], None).unwrap().shown(), "node index.js");
        assert!(find(&[("x.js", "")], None).unwrap_err().contains("nothing says"));
    }

    #[test]
    fn nothing_outside_the_release_is_run() {
        let out = find(&[("a.js", "-> /etc/passwd")], Some(&["node", "a.js"])).unwrap_err();
        assert!(out.contains("leads out"), "{out}");
        let up = find(&[], Some(&["../../bin/sh"])).unwrap_err();
        assert!(up.contains("is not there") || up.contains("leads out"), "{up}");
    }
}
