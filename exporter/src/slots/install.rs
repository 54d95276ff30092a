//! What installs and builds an application: given, or found by its lock file.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::start::{Package, on_path};
use crate::named;

/// A command that is to be run somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Todo {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its folder.
    pub cwd: PathBuf,
    /// It was given, so that its arguments may hold secrets.
    pub given: bool,
}

impl Todo {
    /// For people: `npm ci`.
    pub fn shown(&self) -> String {
        if self.given {
            let name = self.program.file_name().unwrap_or_default().to_string_lossy();
            return format!("{name}{}", if self.args.is_empty() { "" } else { " …" });
        }
        let name = self.program.file_name().unwrap_or_default().to_string_lossy();
        std::iter::once(&*name)
            .chain(self.args.iter().map(String::as_str))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// An application that is to be installed and built.
#[derive(Clone, Copy, Debug)]
pub struct Project<'a> {
    /// The release's folder.
    pub release: &'a Path,
    /// The application's folder within it.
    pub folder: &'a Path,
    /// The PATH.
    pub path: &'a str,
}

/// Programs by their lock file, with what installs exactly what it says.
const MANAGERS: [(&str, &str, &[&str]); 4] = [
    ("pnpm-lock.yaml", "pnpm", &["install", "--frozen-lockfile"]),
    ("yarn.lock", "yarn", &["install", "--frozen-lockfile", "--non-interactive"]),
    ("package-lock.json", "npm", &["ci", "--no-audit", "--no-fund"]),
    ("npm-shrinkwrap.json", "npm", &["ci", "--no-audit", "--no-fund"]),
];

impl Project<'_> {
    /// What installs it; nothing where there is nothing to install.
    ///
    /// # Errors
    /// The program is not there, or package.json makes no sense.
    pub fn install(&self, given: Option<&[String]>) -> Result<Option<Todo>, String> {
        if let Some(words) = given {
            return self.given(words).map_err(|error| format!("install: {error}"));
        }
        if Package::read(self.folder)?.is_none() {
            return Ok(None);
        }
        if let Some((folder, _, program, args)) = self.lock() {
            return self.todo(program, args, &folder).map(Some);
        }
        if !needs_install(self.folder) {
            return Ok(None);
        }
        self.todo("npm", &["install", "--no-audit", "--no-fund", "--no-package-lock"], self.folder)
            .map(Some)
    }

    /// What builds it; nothing where package.json has no `build` script.
    ///
    /// # Errors
    /// As [`Self::install`].
    pub fn build(&self, given: Option<&[String]>) -> Result<Option<Todo>, String> {
        if let Some(words) = given {
            return self.given(words).map_err(|error| format!("build: {error}"));
        }
        let package = Package::read(self.folder)?;
        if !package.is_some_and(|package| package.has_script("build")) {
            return Ok(None);
        }
        let program = self.lock().map_or("npm", |(_, _, program, _)| program);
        self.todo(program, &["run", "build"], self.folder).map(Some)
    }

    /// The nearest lock file, from the application's folder up to the repository's: in a
    /// monorepo it stands at the top.
    fn lock(&self) -> Option<(PathBuf, &'static str, &'static str, &'static [&'static str])> {
        for folder in self.folder.ancestors().take_while(|at| at.starts_with(self.release)) {
            for (file, program, args) in MANAGERS {
                if folder.join(file).is_file() {
                    return Some((folder.to_owned(), file, program, args));
                }
            }
        }
        None
    }

    fn todo(&self, program: &str, args: &[&str], cwd: &Path) -> Result<Todo, String> {
        let found = on_path(program, self.path)
            .ok_or_else(|| format!("{program} is needed and is not on the PATH"))?;
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Ok(Todo { program: found, args, cwd: cwd.to_owned(), given: false })
    }

    fn given(&self, words: &[String]) -> Result<Option<Todo>, String> {
        let Some((program, args)) = words.split_first() else { return Ok(None) };
        let own = self.folder.join("node_modules/.bin").join(program);
        let found = if program.contains('/') {
            let path = self.folder.join(program);
            let real = path.canonicalize().map_err(|_| format!("{program:?} is not there"))?;
            let release = self.release.canonicalize().map_err(|error| error.to_string())?;
            if !real.starts_with(release) {
                return Err(format!("{program:?} leads out of the release"));
            }
            real
        } else if own.exists() {
            own
        } else {
            on_path(program, self.path).ok_or_else(|| format!("there is no program {program:?}"))?
        };
        Ok(Some(Todo {
            program: found,
            args: args.to_vec(),
            cwd: self.folder.to_owned(),
            given: true,
        }))
    }
}

/// Whether package.json asks for packages, or for something to be done when installed.
fn needs_install(folder: &Path) -> bool {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Needs {
        dependencies: serde_json::Map<String, serde_json::Value>,
        dev_dependencies: serde_json::Map<String, serde_json::Value>,
        optional_dependencies: serde_json::Map<String, serde_json::Value>,
        peer_dependencies: serde_json::Map<String, serde_json::Value>,
        workspaces: Option<serde_json::Value>,
        scripts: serde_json::Map<String, serde_json::Value>,
    }
    let mut text = Vec::new();
    let read = named::read(&folder.join("package.json"))
        .and_then(|file| file.take(1 << 20).read_to_end(&mut text));
    if read.is_err() {
        return false;
    }
    let Ok(needs) = serde_json::from_slice::<Needs>(&text) else { return true };
    let scripts = ["preinstall", "install", "postinstall", "prepare", "prepublish"];
    !(needs.dependencies.is_empty()
        && needs.dev_dependencies.is_empty()
        && needs.optional_dependencies.is_empty()
        && needs.peer_dependencies.is_empty()
        && needs.workspaces.is_none()
        && !scripts.iter().any(|name| needs.scripts.contains_key(*name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn todo(files: &[(&str, &str)], subdir: &str) -> Option<(String, PathBuf)> {
        let release = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = release.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let folder = release.path().join(subdir);
        let path = std::env::var("PATH").unwrap();
        let project = Project { release: release.path(), folder: &folder, path: &path };
        let todo = project.install(None).unwrap()?;
        Some((todo.shown(), todo.cwd.strip_prefix(release.path()).unwrap().to_owned()))
    }

    #[test]
    fn the_lock_file_says_who_installs() {
        let package = r#"{"dependencies":{"x":"1"}}"#;
        let found = |lock: &str| todo(&[("package.json", package), (lock, "")], "").unwrap().0;
        assert_eq!(found("package-lock.json"), "npm ci --no-audit --no-fund");
        assert!(found("x").starts_with("npm install"));
        let top =
            [("package.json", "{}"), ("package-lock.json", ""), ("apps/a/package.json", package)];
        let (shown, cwd) = todo(&top, "apps/a").unwrap();
        assert!(shown.starts_with("npm ci") && cwd.as_os_str().is_empty(), "{shown} {cwd:?}");
    }

    #[test]
    fn nothing_is_installed_where_nothing_is_asked_for() {
        assert_eq!(todo(&[("server.js", "")], ""), None);
        assert_eq!(todo(&[("package.json", r#"{"scripts":{"start":"node ."}}"#)], ""), None);
        assert!(todo(&[("package.json", r#"{"scripts":{"postinstall":"x"}}"#)], "").is_some());
    }
}
