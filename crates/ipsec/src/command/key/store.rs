//! A file with keys in it, written whole or not at all and for nobody else to read.

use crate::command::Failure;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file in the making, beside the one it will replace.
#[derive(Debug)]
pub(super) struct Store {
    file: File,
    draft: PathBuf,
    path: PathBuf,
    done: bool,
}

impl Store {
    /// Begins.
    pub(super) fn new(path: &str) -> Result<Self, Failure> {
        let path = PathBuf::from(path);
        let shown = path.display();
        let fail = |why: &dyn core::fmt::Display| Failure::new(format_args!("{shown}: {why}"));
        let name = path.file_name().ok_or_else(|| fail(&"not the name of a file"))?;
        match fs::metadata(&path) {
            Ok(old) if !old.is_file() => {
                return Err(fail(&"not a regular file; leave the name out for standard output"));
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(fail(&error)),
        }
        let mut draft = std::ffi::OsString::from(".");
        draft.push(name);
        draft.push(format!(".{}", std::process::id()));
        let draft = path.with_file_name(draft);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft);
        match file {
            Ok(file) => Ok(Self { file, draft, path, done: false }),
            Err(error) => Err(fail(&error)),
        }
    }

    /// Goes on.
    pub(super) fn write(&mut self, text: &str) -> Result<(), Failure> {
        self.file.write_all(text.as_bytes()).map_err(|error| self.fail(&error))
    }

    /// Puts it in its place, and is sure that it stays there.
    pub(super) fn finish(mut self) -> Result<(), Failure> {
        let placed = self.file.sync_all().and_then(|()| fs::rename(&self.draft, &self.path));
        placed.map_err(|error| self.fail(&error))?;
        self.done = true;
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| self.fail(&error))
    }

    fn fail(&self, error: &io::Error) -> Failure {
        Failure::new(format_args!("{}: {error}", self.path.display()))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_file(&self.draft);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        fs::write(&path, "old").unwrap();
        let name = path.to_str().unwrap();
        let mut unfinished = Store::new(name).unwrap();
        unfinished.write("half").unwrap();
        drop(unfinished);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        let mut store = Store::new(name).unwrap();
        store.write("new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old", "until it is whole");
        store.finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no drafts are left");
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let why = Store::new(dir.path().to_str().unwrap()).unwrap_err().to_string();
        assert!(why.contains("not a regular file"), "{why}");
        assert!(Store::new("/nonexistent/keys").is_err());
    }
}
