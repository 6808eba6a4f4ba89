//! `lora-pro compare`: the table, the report and the numbers.

mod common;

use std::fs;

use common::{folder, succeeds};

#[test]
fn a_short_comparison_prints_a_table_and_writes_a_report() {
    let folder = folder();
    let arguments = [
        "compare", "--seeds", "1", "--steps", "6", "--out", "r.html", "--json", "r.json",
    ];
    let said = succeeds(folder.path(), &arguments);
    let names = [
        "full fine-tuning",
        "LoRA",
        "rsLoRA",
        "LoRA+",
        "LoRA-Pro efficient",
    ];
    for name in names
        .into_iter()
        .chain(["LoRA-Pro factored", "LoRA-Pro full"])
    {
        let rows = said
            .stdout
            .lines()
            .filter(|line| line.starts_with(&format!("{name}  ")));
        assert_eq!(rows.count(), 4, "{name}: {}", said.stdout);
    }
    assert!(
        said.stdout.lines().all(|line| !line.contains("NaN")),
        "{}",
        said.stdout
    );
    assert!(
        said.stderr.lines().any(|line| line == "report: r.html"),
        "{}",
        said.stderr
    );

    let html = fs::read_to_string(folder.path().join("r.html")).unwrap();
    assert_eq!(html.matches("<figure>").count(), 6);
    assert_eq!(html.matches("Nothing to show").count(), 0);
    for outside in ["http:", "https:", "src=", "href=", "url(", "NaN"] {
        assert!(!html.contains(outside), "{outside}");
    }
    let json = fs::read_to_string(folder.path().join("r.json")).unwrap();
    assert!(json.contains("\"selection\": \"auto"));
}
