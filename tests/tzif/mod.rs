//! Zone files that tests write by themselves: data that is built in nowhere.

use std::fs;
use std::path::Path;

/// A zone file, version 2: the offsets of a clock in seconds with their short names, the instants
/// of its changes with the number of the offset that follows, and its rule for all later times.
pub fn zone_file(offsets: &[(i32, bool, &str)], changes: &[(i64, u8)], rule: &str) -> Vec<u8> {
    let mut names = Vec::new();
    let mut kinds = Vec::new();
    for (offset, is_dst, name) in offsets {
        kinds.extend(offset.to_be_bytes());
        kinds.extend([u8::from(*is_dst), names.len() as u8]);
        names.extend(name.bytes().chain([0]));
    }
    let header = |changes: usize, kinds: usize, names: usize| {
        let mut bytes = b"TZif2".to_vec();
        bytes.extend([0; 15]);
        for count in [0, 0, 0, changes, kinds, names] {
            bytes.extend((count as u32).to_be_bytes());
        }
        bytes
    };
    // The part for 32-bit times, which nobody reads, may be as short as this.
    let mut bytes = header(0, 1, 1);
    bytes.extend([0; 7]);
    bytes.extend(header(changes.len(), offsets.len(), names.len()));
    bytes.extend(changes.iter().flat_map(|(at, _)| at.to_be_bytes()));
    bytes.extend(changes.iter().map(|(_, kind)| kind));
    bytes.extend(kinds);
    bytes.extend(names);
    bytes.extend(format!("\n{rule}\n").bytes());
    bytes
}

/// Vancouver as of a release that is not built in: the clock goes to -07 in March 2026 and stays.
pub fn vancouver() -> Vec<u8> {
    const MARCH_2026: i64 = 1_772_964_000;
    let mut changes = Vec::new();
    // The changes of 2025, so that the past agrees with what it was.
    changes.extend([(1_741_514_400, 1), (1_762_074_000, 0), (MARCH_2026, 2)]);
    let offsets = [(-8 * 3600, false, "PST"), (-7 * 3600, true, "PDT"), (-7 * 3600, false, "MST")];
    zone_file(&offsets, &changes, "MST7")
}

/// Writes zone files of a release to a folder.
pub fn write(folder: &Path, release: &str, files: &[(&str, &[u8])]) {
    fs::create_dir_all(folder).expect("a folder for zone files");
    fs::write(folder.join("tzdata.zi"), format!("# version {release}\n")).expect("written");
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("inside the folder")).expect("a folder");
        fs::write(path, bytes).expect("written");
    }
}
