//! Which modules are trained, by options and by a configuration file.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{folder, refusal, succeeds};
use insta::assert_snapshot;
use lora_pro_core::read_tensors;
use serde_json::{Value, json};

/// A short run on the digits, whose network has the hidden layers `layers.0` to `layers.2`.
const TRAIN: [&str; 5] = [
    "train",
    "--backend=reference",
    "--pretrain-steps=5",
    "--steps=2",
    "--out=run",
];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    TRAIN.iter().chain(more).copied().collect()
}

/// The saved tensors without PEFT's prefix, with their shapes.
fn trained(more: &[&str]) -> BTreeMap<String, Vec<usize>> {
    let folder = folder();
    succeeds(folder.path(), &with(more));
    saved(&folder.path().join("run"))
}

fn saved(run: &Path) -> BTreeMap<String, Vec<usize>> {
    let bytes = fs::read(run.join("adapter_model.safetensors")).unwrap();
    let tensors = read_tensors(&bytes).unwrap().into_iter();
    let short = |name: String| name.strip_prefix("base_model.model.").unwrap().to_string();
    tensors
        .map(|(name, data)| (short(name), data.shape))
        .collect()
}

fn adapted(tensors: &BTreeMap<String, Vec<usize>>) -> Vec<&str> {
    let names = tensors.keys();
    names
        .filter_map(|name| name.strip_suffix(".lora_A.weight"))
        .collect()
}

#[test]
fn names_and_expressions_choose_modules() {
    for (options, expected) in [
        (
            &["--target-modules=layers.2,0"][..],
            &["layers.0", "layers.2"][..],
        ),
        (&["--target-modules=.*[12]"], &["layers.1", "layers.2"]),
        (
            &["--target-modules=all-linear", "--exclude-modules=1"],
            &["layers.0", "layers.2"],
        ),
        (&["--exclude-modules=.*(0|2)"], &["layers.1"]),
    ] {
        assert_eq!(adapted(&trained(options)), expected, "{options:?}");
    }
}

#[test]
fn ranks_alphas_and_whole_modules() {
    let options = [
        "--rank=2",
        "--rank-pattern=layers.1=3,.*[2]=1",
        "--alpha-pattern=1=6.5",
        "--modules-to-save=layers.0",
    ];
    let folder = folder();
    succeeds(folder.path(), &with(&options));
    let run = folder.path().join("run");
    let tensors = saved(&run);
    assert_eq!(adapted(&tensors), ["layers.1", "layers.2"]);
    assert_eq!(tensors["layers.1.lora_A.weight"], [3, 96]);
    assert_eq!(tensors["layers.2.lora_A.weight"], [1, 96]);
    assert_eq!(tensors["layers.0.weight"], [96, 64]);
    assert_eq!(tensors["layers.0.bias"], [96]);
    let config: Value =
        serde_json::from_slice(&fs::read(run.join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!(config["modules_to_save"], json!(["head", "layers.0"]));
    assert_eq!(config["lora_alpha"], json!(6.5));
    assert_eq!(config["alpha_pattern"], json!({ "^layers.2": 8.0 }));

    let text = "rank = 2\nmodules_to_save = [\"layers.0\"]\ntarget_modules = \"all-linear\"\n\
                [rank_pattern]\n\"layers.1\" = 3\n\".*[2]\" = 1\n[alpha_pattern]\n1 = 6.5\n";
    fs::write(folder.path().join("run.toml"), text).unwrap();
    let resumed = with(&["--config=run.toml", "--resume"]);
    assert!(
        succeeds(folder.path(), &resumed)
            .stderr
            .contains("resumed after step 2 of 2")
    );
}

#[test]
fn full_fine_tuning_and_the_gap_have_the_same_targets() {
    let folder = folder();
    let options = ["--method=full-ft", "--target-modules=layers.1"];
    succeeds(folder.path(), &with(&options));
    let file = fs::read(folder.path().join("run/checkpoint.safetensors")).unwrap();
    let tensors = read_tensors(&file).unwrap();
    let trained = tensors
        .keys()
        .filter_map(|name| name.strip_prefix("trained."));
    assert_eq!(
        trained.collect::<Vec<_>>(),
        ["head.bias", "head.weight", "layers.1.weight"]
    );
    let arguments = [
        "gap",
        "--pretrain-steps=5",
        "--steps=2",
        "--target-modules=7",
    ];
    assert!(refusal(folder.path(), &arguments).contains("target_modules is 7"));
}

#[test]
fn what_fits_nothing_or_is_ambiguous_is_refused() {
    let folder = folder();
    let refused = |option| refusal(folder.path(), &with(&[option]));
    assert_snapshot!(refused("--target-modules=layers.1,query"), @"error: the adapter's configuration: target_modules is query, but it must be the name of a module, or the end of it; there are layers.0, layers.1, layers.2");
    assert_snapshot!(refused("--target-modules=query.*"), @r#"error: the adapter's configuration: target_modules is "query.*", but it must be such that a linear module is chosen; there are layers.0, layers.1, layers.2"#);
    assert_snapshot!(refused("--target-modules=(query"), @"error: the adapter's configuration: target_modules is (query, but it must be a regular expression: Parsing error at position 6: Opening parenthesis without closing parenthesis");
    assert_snapshot!(refused("--exclude-modules=query"), @"error: the adapter's configuration: exclude_modules is query, but it must be the name of a module, or the end of it; there are layers.0, layers.1, layers.2");
    assert_snapshot!(refused("--rank-pattern=query=2"), @"error: the adapter's configuration: rank_pattern is query, but it must be the name of a module with an adapter, or the end of it");
    assert_snapshot!(refused("--rank-pattern=1=2,layers.1=3"), @"error: the adapter's configuration: rank_pattern is 1 and layers.1, but it must be without two values for layers.1");
    assert_snapshot!(refused("--rank-pattern=1"), @r"
    error: invalid value '1' for '--rank-pattern <NAME=R,...>': `1` is not NAME=NUMBER

    For more information, try '--help'.
    ");
    assert_snapshot!(refused("--alpha-pattern=1=nan"), @"error: the command line: `alpha_pattern.1` is not a finite number");
    assert_snapshot!(refused("--modules-to-save=pooler"), @"error: the adapter's configuration: modules_to_save is pooler, but it must be the end of a module's name; there are head, layers.0, layers.1, layers.2");
    assert_snapshot!(refused("--layers-to-transform=1"), @"error: the adapter's configuration: layers_to_transform is set, but it must be absent where target_modules is a regular expression or all-linear");
    let many = with(&["--target-modules=0,1", "--layers-to-transform=1,7"]);
    assert_snapshot!(refusal(folder.path(), &many), @"error: the adapter's configuration: layers_to_transform is 1, but it must be the number of a layer; there are layers.0, layers.1, layers.2");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
