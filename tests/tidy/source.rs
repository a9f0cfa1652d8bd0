//! The tree as the rules of tidy see it: files, their lines, functions, modules and imports.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// One Rust file of the tree.
#[derive(Debug)]
pub(crate) struct Source {
    /// From the root of the tree, with slashes.
    pub(crate) path: String,
    lines: Vec<String>,
    /// Whether the line of this index is in a test module or the whole file is one.
    is_test: Vec<bool>,
}

impl Source {
    /// All files of the workspace's crates.
    pub(crate) fn all() -> Vec<Self> {
        let mut paths = Vec::new();
        for member in ["common", "sender", "receiver", "tests"] {
            collect(&root().join(member), &mut paths);
        }
        let mut test_modules = BTreeSet::new();
        for (path, _) in paths.iter().flat_map(|path| submodules(path)).filter(|(_, test)| *test) {
            module_files(&path, &mut test_modules);
        }
        assert!(paths.len() > 50, "{} files: this is not the whole tree", paths.len());
        paths.iter().map(|path| Self::read(path, test_modules.contains(path))).collect()
    }

    fn read(path: &Path, is_test_module: bool) -> Self {
        let lines: Vec<String> =
            fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect();
        let path = path.strip_prefix(root()).unwrap().display().to_string();
        let is_test_code = is_test_module || path.split('/').any(|part| part == "tests");
        let mut is_test = vec![is_test_code; lines.len()];
        for (at, line) in lines.iter().enumerate() {
            if line.trim() == "#[cfg(test)]" {
                is_test[at..=block_end(&lines, at)].fill(true);
            }
        }
        Self { path, lines, is_test }
    }

    /// All lines, numbered as editors do.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines.iter().enumerate().map(|(at, line)| (at + 1, line.as_str()))
    }

    /// The lines that count: all below a folder `tests`, elsewhere those outside test modules.
    pub(crate) fn counted_lines(&self) -> usize {
        let is_test_crate = self.path.split('/').any(|part| part == "tests");
        self.is_test.iter().filter(|is_test| is_test_crate || !**is_test).count()
    }

    /// First line and length of each function outside test modules.
    pub(crate) fn functions(&self) -> impl Iterator<Item = (usize, usize)> {
        let starts = self.numbered().filter(|(number, line)| {
            let mut words = line.split_whitespace().take_while(|word| !word.contains('('));
            !self.is_test[number - 1]
                && !line.trim_start().starts_with("//")
                && (words.any(|word| word == "fn") || line.trim_start().starts_with("fn "))
        });
        starts.map(|(number, _)| (number, block_end(&self.lines, number - 1) + 2 - number))
    }

    /// Code outside test modules, without comments. What a `use` takes from a braced list stands
    /// there as full paths.
    pub(crate) fn production_code(&self) -> Vec<(usize, String)> {
        let mut statements = Vec::new();
        let mut open: Option<(usize, String)> = None;
        for (number, line) in self.numbered().filter(|(number, _)| !self.is_test[number - 1]) {
            let code = line.split("//").next().unwrap_or_default().trim();
            let begins = ["use ", "pub use ", "pub(crate) use ", "pub(super) use "];
            if open.is_none() && begins.iter().any(|begin| code.starts_with(begin)) {
                open = Some((number, String::new()));
            }
            let Some((_, statement)) = &mut open else {
                statements.push((number, code.to_owned()));
                continue;
            };
            statement.push_str(code);
            if code.ends_with(';')
                && let Some((number, statement)) = open.take()
            {
                let path = statement.trim_end_matches(';').split_once("use ").unwrap().1;
                statements.extend(expand("", path).into_iter().map(|path| (number, path)));
            }
        }
        statements
    }

    pub(crate) fn is_below(&self, folder: &str) -> bool {
        self.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
    }

    pub(crate) fn begins_with(&self, text: &str) -> bool {
        self.lines.first().is_some_and(|line| line.starts_with(text))
    }

    /// Adds "path:line: rule: reason" to `faults`.
    pub(crate) fn fault(&self, faults: &mut String, line: usize, rule: &str, reason: &str) {
        writeln!(faults, "{}:{line}: {rule}: {reason}", self.path).unwrap();
    }
}

/// Whether `code` has `name` as whole words.
pub(crate) fn is_named(code: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back().filter(|_| name.starts_with(is_word));
        let after = code[at + name.len()..].chars().next().filter(|_| name.ends_with(is_word));
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// The full paths of a `use` tree: `a::{b, c::{d, e}}` is `a::b`, `a::c::d` and `a::c::e`.
fn expand(prefix: &str, tree: &str) -> Vec<String> {
    let Some((head, list)) = tree.split_once('{') else {
        return vec![format!("{prefix}{}", tree.trim())];
    };
    let prefix = format!("{prefix}{}", head.trim());
    let list = list.trim_end().trim_end_matches('}');
    let (mut paths, mut depth, mut from) = (Vec::new(), 0, 0);
    for (at, c) in list.char_indices().chain([(list.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth <= 0 || at == list.len() => {
                paths.extend(expand(&prefix, &list[from..at]));
                from = at + 1;
            }
            _ => {}
        }
    }
    paths
}

/// Adds the file at `path` and all files of the modules it declares.
pub(crate) fn module_files(path: &Path, files: &mut BTreeSet<PathBuf>) {
    if files.insert(path.to_owned()) {
        for (module, _) in submodules(path) {
            module_files(&module, files);
        }
    }
}

/// The files of the modules that the file at `path` declares without a body, and whether for
/// tests only.
fn submodules(path: &Path) -> Vec<(PathBuf, bool)> {
    let text = fs::read_to_string(path).unwrap();
    let folder = path.parent().unwrap();
    let (mut named, mut is_test, mut found) = (None, false, Vec::new());
    for line in text.lines().map(str::trim) {
        if let Some(file) = line.strip_prefix("#[path = \"") {
            named = file.split('"').next();
        } else if line == "#[cfg(test)]" {
            is_test = true;
        } else if !line.starts_with("#[") {
            let declared = line.strip_suffix(';').and_then(|line| {
                let (visibility, module) = line.split_once("mod ")?;
                (visibility.is_empty() || visibility.starts_with("pub")).then_some(module)
            });
            if let Some(module) = declared {
                let places = [path.with_extension("").join(module), folder.join(module)];
                let files = places
                    .iter()
                    .flat_map(|place| [place.with_extension("rs"), place.join("mod.rs")]);
                let mut files = named.iter().map(|file| folder.join(file)).chain(files);
                let file = files.find(|file| file.is_file());
                let file = file.unwrap_or_else(|| panic!("{}: no {module}", path.display()));
                found.push((file.canonicalize().unwrap(), is_test));
            }
            (named, is_test) = (None, false);
        }
    }
    found
}

/// The last line of the item that begins at `lines[at]`, which may be an attribute of it.
fn block_end(lines: &[String], at: usize) -> usize {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut start = at;
    while lines[start].trim_start().starts_with("#[") {
        while !lines[start].trim_end().ends_with(']') {
            start += 1;
        }
        start += 1;
    }
    let ends = |line: &&String| {
        let text = line.trim();
        indent(line) == indent(&lines[start])
            && (text.starts_with('}') || text.ends_with([';', ',']) || text.ends_with('}'))
    };
    lines[start..].iter().position(|line| ends(&line)).map_or(lines.len() - 1, |end| start + end)
}

/// Adds all Rust files below `folder`, in order.
fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in sorted_entries(folder) {
        if entry.is_dir() {
            collect(&entry, paths);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            paths.push(entry);
        }
    }
}

/// What is in `folder`, by name.
fn sorted_entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// The text of the file at `path`, from the root of the tree.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The root of the tree.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().canonicalize().unwrap()
}
