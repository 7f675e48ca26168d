//! `mirrorbus.h` is what cbindgen makes of the source, and compilers of every standard that is promised take it.
//!
//! `MIRRORBUS_RENEW=1 cargo test -p mirrorbus-ffi --test header` writes it anew.

use std::path::{Path, PathBuf};
use std::process::Command;

use cbindgen::{Config, DocumentationStyle, Language, Style};

/// In the order in which they are to be read.
const SOURCES: [&str; 12] = [
    "version",
    "codes",
    "guard",
    "types",
    "epoch_types",
    "holder",
    "region",
    "lane",
    "epoch_holder",
    "epochs",
    "dataset",
    "volume",
];

const OPENING: &str = "/*
 * Mirrorbus: memory and volumes that are mirrored in another process or on another machine.
 *
 * Made from the source by cbindgen: change it there. docs/c.md is the manual.
 *
 * Functions return MIRRORBUS_OK, which is 0, or a negative mirrorbus_code; mirrorbus_error_text() then has a sentence for people. After an
 * error nothing is left half done, but where a function says so. No function throws, aborts or calls back.
 *
 * Handles are no addresses: a null, closed or invented one is MIRRORBUS_E_HANDLE. Functions say which threads may be in them at the same
 * time; one thread too many is MIRRORBUS_E_BUSY. A forked child is told MIRRORBUS_E_FORKED by all functions but the few that only tell
 * something: fork before the library is used.
 *
 * Structs that begin with `size` are to be all zeroes but for it and for what is wanted: mirrorbus_region_options options = {.size = sizeof options}. So programs that
 * were built with an older header run with a newer library. Times are in nanoseconds.
 */";

const CLOSING: &str =
    "/* Whether this program can use the library that it runs with: to be called once, first. */
#define MIRRORBUS_ABI_CHECK() mirrorbus_abi_check(MIRRORBUS_ABI_VERSION)
";

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn made() -> String {
    let mut config = Config {
        language: Language::C,
        header: Some(OPENING.to_owned()),
        trailer: Some(CLOSING.to_owned()),
        include_guard: Some("MIRRORBUS_H".to_owned()),
        no_includes: true,
        sys_includes: ["stddef.h", "stdint.h"].map(str::to_owned).to_vec(),
        cpp_compat: true,
        documentation_style: DocumentationStyle::Doxy,
        style: Style::Both,
        usize_is_size_t: true,
        line_length: 110,
        ..Config::default()
    };
    let enums = [
        "code",
        "level",
        "attach",
        "lock",
        "polling",
        "tracking",
        "link",
        "content",
        "durability",
        "role",
        "replication",
    ];
    config.export.include = enums.map(|name| format!("mirrorbus_{name}")).to_vec();
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in SOURCES {
        builder = builder.with_src(folder().join(format!("src/{source}.rs")));
    }
    let mut header = Vec::new();
    builder.generate().unwrap().write(&mut header);
    // What Rust calls so is what a caller promises of the pointers.
    String::from_utf8(header).unwrap().replace(" * # Safety\n * ", " * Pointers: ")
}

#[test]
fn the_header_is_what_the_source_says() {
    let path = folder().join("mirrorbus.h");
    let made = made();
    if std::env::var_os("MIRRORBUS_RENEW").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = made.lines().zip(there.lines()).position(|(made, there)| made != there);
    assert!(
        made == there,
        "mirrorbus.h differs from the source, first in line {:?}: MIRRORBUS_RENEW=1 writes it anew",
        differs.unwrap_or(made.lines().count().min(there.lines().count())) + 1
    );
    for name in SOURCES {
        let source = std::fs::read_to_string(folder().join(format!("src/{name}.rs"))).unwrap();
        for function in source.split("extern \"C\" fn ").skip(1) {
            let name = function.split('(').next().unwrap();
            assert!(made.contains(&format!("{name}(")), "{name} is in the header");
        }
    }
}

#[test]
fn the_library_has_the_name_of_its_version() {
    let version: u32 = made()
        .lines()
        .find_map(|line| line.strip_prefix("#define MIRRORBUS_ABI_VERSION "))
        .and_then(|number| number.parse().ok())
        .unwrap();
    let build = std::fs::read_to_string(folder().join("build.rs")).unwrap();
    assert!(build.contains(&format!("libmirrorbus.so.{}\"", version - 1)), "the soname of ffi/build.rs");
}

#[test]
fn compilers_of_every_standard_take_it() {
    let work = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("header");
    std::fs::create_dir_all(&work).unwrap();
    std::fs::write(work.join("mirrorbus.h"), made()).unwrap();
    let program = "#include <mirrorbus.h>\nint main(void) { return MIRRORBUS_ABI_CHECK() + (int)MIRRORBUS_DURABLE * 0; }\n";
    for (compiler, standard, name) in
        [("cc", "c99", "header.c"), ("cc", "c11", "header.c"), ("c++", "c++17", "header.cpp")]
    {
        let file = work.join(name);
        std::fs::write(&file, program).unwrap();
        let said = Command::new(compiler)
            .args([&format!("-std={standard}"), "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only"])
            .arg("-I")
            .arg(&work)
            .arg(&file)
            .output()
            .unwrap();
        assert!(said.status.success(), "{standard}: {}", String::from_utf8_lossy(&said.stderr));
    }
}
