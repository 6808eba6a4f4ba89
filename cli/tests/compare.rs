//! `lora-pro compare`: the table, the report and the numbers.

mod common;

use std::fs;

use common::{folder, refusal, succeeds};

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

#[test]
fn a_comparison_goes_on_with_the_runs_that_are_missing() {
    let folder = folder();
    let config = r#"
        methods = ["full-fine-tuning", "lora", "LoRA of rank 1"]
        lrs = [1e-3]
        seeds = [4]
        steps = 3
        pretrain_steps = 5
        [variants."LoRA of rank 1"]
        method = "lora"
        rank = 1
    "#;
    fs::write(folder.path().join("c.toml"), config).unwrap();
    let compare = |more: &[&str]| {
        let common = ["compare", "--config", "c.toml", "--runs", "r.jsonl"];
        let arguments = [&common[..], &["--out", "r.md"], more].concat();
        let said = succeeds(folder.path(), &arguments);
        let runs = fs::read_to_string(folder.path().join("r.jsonl")).unwrap();
        (said, runs)
    };
    let (first, runs) = compare(&["--methods", "full-fine-tuning,LoRA of rank 1"]);
    assert!(!first.stdout.contains("\nLoRA  "), "{}", first.stdout);
    assert_eq!(runs.lines().count(), 2);
    let (second, more) = compare(&[]);
    assert!(second.stdout.contains("\nLoRA  "), "{}", second.stdout);
    // Full fine-tuning ran again, since LoRA is measured against its weights, but it is known already.
    assert!(more.starts_with(&runs), "{more}");
    assert_eq!(more.lines().count(), 3);
    let (third, same) = compare(&[]);
    assert_eq!(same, more);
    let untimed = |text: &str| {
        let lines = text.lines().filter(|line| !line.ends_with(" s in all"));
        lines.map(str::to_string).collect::<Vec<_>>()
    };
    assert_eq!(untimed(&second.stdout), untimed(&third.stdout));

    let markdown = fs::read_to_string(folder.path().join("r.md")).unwrap();
    assert!(markdown.contains("\n| LoRA of rank 1 | "), "{markdown}");
    assert!(
        markdown.contains("\n### Every learning rate\n"),
        "{markdown}"
    );
}

#[test]
fn what_does_not_fit_an_experiment_is_refused() {
    let folder = folder();
    let refused = |config: &str, more: &[&str]| {
        fs::write(folder.path().join("c.toml"), config).unwrap();
        let arguments = [&["compare", "--config", "c.toml"], more].concat();
        let said = refusal(folder.path(), &arguments);
        said.lines().last().unwrap_or_default().to_string()
    };
    let all = [
        refused("pretrain_steps = 1\nranks = 3", &[]),
        refused("pretrain_steps = 1\nrank = \"two\"", &[]),
        refused("pretrain_steps = 1\nlrs = [1e-3, nan]", &[]),
        refused("pretrain_steps = 1\n[optimizer]\nbeta3 = 0.5", &[]),
        refused("pretrain_steps = 1", &["--methods", "lora"]),
        refused(
            "pretrain_steps = 1",
            &["--methods", "full-fine-tuning,loro"],
        ),
        refused("", &["--out", "report.pdf"]),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    error: c.toml: unknown field `ranks`, expected one of `model`, `data`, `task`, `validation_data`, `test_data`, `dtype`, `max_length`, `pretrain_steps`, `alpha`, `batch`, `distance`, `gap_points`, `head_lr`, `lora_dropout`, `lrs`, `max_grad_norm`, `methods`, `micro_batches`, `optimizer`, `rank`, `schedule`, `seeds`, `steps`, `variants`
    error: c.toml: the experiment: invalid type: string "two", expected usize
    error: c.toml: `lrs` is not a finite number
    error: c.toml: the experiment: unknown field `beta3`, expected one of `method`, `x`, `damping`, `lr`, `lr_ratio`, `beta1`, `beta2`, `eps`, `weight_decay`, `decay_base`, `momentum`, `amsgrad`, `maximize`, `update_clip`, `moment_dtype`, `rounding`
    error: the experiment: first method is lora, but it must be full-fine-tuning
    error: the experiment: method is loro, but it must be one of full-fine-tuning, full-fine-tuning-all, lora, rslora, lora-plus, lora-pro-efficient, lora-pro-factored, lora-pro-full
    error: report.pdf: a report ends with .html or .md
    "#);
}
