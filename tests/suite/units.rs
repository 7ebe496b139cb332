//! The files of `systemd/` as texts: related settings agree. Their behavior is tested under a real systemd, in
//! `tests/systemd`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the directives, without comments and blank lines.
fn directives(unit: &str) -> Vec<String> {
    let lines = read(unit);
    let lines = lines
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

#[test]
fn the_template_differs_from_the_unit_only_in_its_instance_name() {
    let unit = directives("systemd/distilld.service");
    let template = directives("systemd/distilld@.service");
    let only_in_template: Vec<_> = template
        .iter()
        .filter(|line| !unit.contains(line))
        .collect();
    assert!(
        only_in_template.iter().all(|line| line.contains("%i")),
        "{only_in_template:?}"
    );
    let only_in_unit: Vec<_> = unit
        .iter()
        .filter(|line| !template.contains(line))
        .collect();
    assert_eq!(
        only_in_unit,
        [
            "Description=distilld, training samples from scored model runs",
            "RequiresMountsFor=/srv/lakehouse",
            "Wants=distilld.socket",
            "Environment=DISTILLD_CONFIG=/etc/distilld/distilld.toml",
            "ExecStart=/usr/bin/distilld --config /etc/distilld/distilld.toml run",
            "StateDirectory=distilld",
            "RuntimeDirectory=distilld",
            "ReadWritePaths=-/srv/lakehouse/data/distilled",
        ]
    );
}

#[test]
fn the_packaged_configuration_is_the_example_with_its_two_directories_named() {
    let example = read("examples/distilld.toml")
        .replace("#root = ", "root = ")
        .replace("#state_dir = ", "state_dir = ");
    assert_eq!(read("systemd/distilld.toml"), example);
}

#[test]
fn unit_tmpfiles_and_configuration_name_the_same_directories() {
    let configuration = read("systemd/distilld.toml");
    assert!(configuration.contains("\nroot = \"/srv/lakehouse\"\n"));
    assert!(configuration.contains("\nstate_dir = \"/var/lib/distilld\"\n"));
    let tmpfiles = read("systemd/tmpfiles.d/distilld.conf");
    assert!(tmpfiles.contains("\nd /srv/lakehouse/data/distilled "));
    assert!(read("systemd/debian/postrm").contains("rm -rf /var/lib/distilld\n"));
}

#[test]
fn every_text_names_the_packaged_path_of_the_configuration() {
    for path in [
        "README.md",
        "systemd/README.md",
        "examples/distilld.toml",
        "systemd/distilld.toml",
        "systemd/distilld.service",
        "systemd/distilld@.service",
        "src/cli/args/help.rs",
    ] {
        let text = read(path);
        let named = text.matches("/etc/distilld/").count();
        assert!(named > 0, "{path} names no configuration");
        assert!(
            !text.contains("/etc/distilld."),
            "{path} names an unused one"
        );
    }
}

/// The file that only a package of Debian has.
const OF_DEBIAN_ALONE: &str = "/lintian-overrides";
/// The units of each package, which cargo-deb finds by their names.
const UNITS: [&str; 4] = [
    "systemd/distilld.service",
    "systemd/distilld.socket",
    "systemd/distilld@.service",
    "systemd/distilld@.socket",
];
const UNITS_OF_PUBLISHER: [&str; 1] = ["systemd/distilld-publish.service"];

#[test]
fn both_kinds_of_each_package_have_the_same_files() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let packages = &manifest["package"]["metadata"];
    let variant = |kind: &str| packages[kind]["variants"]["publish"].clone();
    for (deb, rpm, units) in [
        (
            packages["deb"].clone(),
            packages["generate-rpm"].clone(),
            &UNITS[..],
        ),
        (
            variant("deb"),
            variant("generate-rpm"),
            &UNITS_OF_PUBLISHER[..],
        ),
    ] {
        let sources = |package: &toml::Value, source: fn(&toml::Value) -> &toml::Value| {
            let assets = package["assets"].as_array().unwrap();
            let sources = assets.iter().map(|asset| source(asset).as_str().unwrap());
            sources.map(str::to_owned).collect::<BTreeSet<String>>()
        };
        let mut deb = sources(&deb, |asset| &asset[0]);
        let rpm = sources(&rpm, |asset| &asset["source"]);
        deb.retain(|source| !source.ends_with(OF_DEBIAN_ALONE));
        deb.extend(units.iter().map(|unit| (*unit).to_owned()));
        assert_eq!(rpm, deb);
    }
}
