//! The rooms of `src/` and which way data flows between them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each room, and the rooms it may use. CONTRIBUTING shows the same table.
const ROOMS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("secret", &[]),
    ("time", &[]),
    ("wire", &["secret", "time"]),
    ("ui", &["error", "secret", "time"]),
    ("bundle", &["error", "time", "wire"]),
    ("auth", &["error", "secret", "time", "wire"]),
    ("api", &["error", "secret", "time", "wire", "auth"]),
    ("ops", &["error", "secret", "time", "wire", "bundle", "api", "ui"]),
    ("local", &["error", "secret", "time", "wire"]),
    ("cli", &["error", "secret", "time", "wire", "ui", "bundle", "auth", "api", "ops", "local"]),
];

/// Crates that only some rooms may know.
const HOMES: &[(&str, &[&str])] = &[
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("indicatif", &["ui"]),
    ("console", &["ui", "cli"]),
    ("dialoguer", &["ui"]),
    ("reqwest", &["api", "auth", "local"]),
    ("axum", &["local"]),
    ("serde_yaml", &["bundle", "local"]),
    ("minijinja", &["ops"]),
    ("tokio_postgres", &["ops", "local"]),
];

#[test]
fn rooms_use_only_what_their_row_allows() {
    let mut crossings = Vec::new();
    for (room, file) in source_files() {
        let allowed = allowed(&room);
        for used in used_rooms(&file) {
            if used != room && !allowed.contains(&used.as_str()) {
                crossings.push(format!("{} uses {used}, which `{room}` may not", file.display()));
            }
        }
    }
    assert!(crossings.is_empty(), "{}", crossings.join("\n"));
}

#[test]
fn outside_crates_stay_in_their_homes() {
    let mut strays = Vec::new();
    for (room, file) in source_files() {
        let text = fs::read_to_string(&file).unwrap();
        for (name, homes) in HOMES {
            let used = text.lines().any(|line| !is_comment(line) && mentions(line, name));
            if used && !homes.contains(&room.as_str()) {
                strays.push(format!("{} uses the crate {name}", file.display()));
            }
        }
    }
    assert!(strays.is_empty(), "{}", strays.join("\n"));
}

#[test]
fn the_table_has_no_cycle_and_misses_no_room() {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for (room, uses) in ROOMS {
        for used in *uses {
            assert!(seen.contains(used), "`{room}` uses `{used}`, which stands below it");
        }
        seen.insert(room);
    }
    for (room, file) in source_files() {
        assert!(seen.contains(room.as_str()), "{} stands in no room", file.display());
    }
}

#[test]
fn contributing_shows_the_same_table() {
    let text = fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let shown: BTreeMap<&str, Vec<&str>> =
        text.lines()
            .filter_map(|line| {
                let mut cells = line.split('|').skip(1).map(str::trim);
                let room = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
                let uses = cells.next()?.split_whitespace().filter_map(|word| {
                    word.strip_prefix('`').and_then(|word| word.strip_suffix('`'))
                });
                Some((room, uses.collect()))
            })
            .collect();
    for (room, uses) in ROOMS {
        assert_eq!(shown.get(room).map(Vec::as_slice), Some(*uses), "the row of `{room}`");
    }
}

fn allowed(room: &str) -> &'static [&'static str] {
    ROOMS.iter().find(|(name, _)| *name == room).map_or(&[], |(_, uses)| uses)
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns every source file with the room it stands in, except the two that open the crate.
fn source_files() -> Vec<(String, PathBuf)> {
    let mut files = Vec::new();
    collect(&root().join("src"), &mut files);
    files
        .into_iter()
        .filter_map(|file| {
            let inside = file.strip_prefix(root().join("src")).unwrap();
            let room = inside.iter().next()?.to_str()?.trim_end_matches(".rs").to_owned();
            (room != "main" && room != "lib").then_some((room, file))
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Returns the rooms a file names as `crate::<room>`.
fn used_rooms(file: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(file).unwrap();
    let mut rooms = BTreeSet::new();
    for line in text.lines().filter(|line| !is_comment(line)) {
        for (_, after) in
            line.match_indices("crate::").map(|(at, name)| (at, &line[at + name.len()..]))
        {
            let names = match after.strip_prefix('{') {
                Some(list) => list.split(',').map(str::trim).collect(),
                None => vec![after],
            };
            for name in names {
                let end =
                    name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
                rooms.insert(name[..end].to_owned());
            }
        }
    }
    let known: BTreeSet<&str> = ROOMS.iter().map(|(room, _)| *room).collect();
    rooms.retain(|room| known.contains(room.as_str()));
    rooms
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// Returns whether `line` names the crate `name` as a path.
fn mentions(line: &str, name: &str) -> bool {
    line.match_indices(&format!("{name}::"))
        .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'))
}
