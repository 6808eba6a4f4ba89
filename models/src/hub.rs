//! Where a model's files are: a folder, or a name on the Hugging Face hub.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use lora_pro_core::Error;

use crate::files::{INDEX, TOKENIZER, WEIGHTS, shards};
use crate::model_files::TOKENIZER_CONFIG;

/// The longest wait for the hub's first answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The folder of a model. A name such as `owner/name` that is no folder here is looked up in the
/// hub's cache and then on the hub, as the environment's `HF_HOME`, `HF_ENDPOINT` and `HF_TOKEN` say.
pub fn find(model: &str) -> Result<PathBuf, Error> {
    let path = Path::new(model);
    if path.exists() {
        return Ok(path.into());
    }
    if !is_hub_name(model) {
        let reason = "there is no such folder, and a name on the hub looks like `owner/name`";
        return Err(Error::file(path, reason));
    }
    fetch(model).map_err(|reason| {
        let reason = format!(
            "there is no such folder, and the Hugging Face hub did not give it: {reason}. Without a \
             network, give a folder with config.json, model.safetensors and tokenizer.json"
        );
        Error::file(path, reason)
    })
}

fn is_hub_name(model: &str) -> bool {
    let plain = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed)
    };
    matches!(model.split_once('/'), Some((owner, name)) if plain(owner) && plain(name))
}

fn fetch(model: &str) -> Result<PathBuf, String> {
    let api = ApiBuilder::from_env().with_progress(false).build();
    let repo = api.map_err(reason)?.model(model.into());
    let config = first_answer(repo)?;
    let repo = ApiBuilder::from_env().build().map_err(reason)?;
    let repo = repo.model(model.into());
    let optional = |name| match repo.get(name) {
        Ok(path) => Ok(Some(path)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(reason(error)),
    };
    optional(TOKENIZER)?;
    // Only copied beside what is trained: a model does without, also when there is no network.
    let _ = repo.get(TOKENIZER_CONFIG);
    if optional(WEIGHTS)?.is_none() {
        let index = repo.get(INDEX).map_err(reason)?;
        for shard in shards(&index).map_err(|error| error.to_string())? {
            repo.get(&shard).map_err(reason)?;
        }
    }
    let folder = config.parent();
    folder
        .map(Path::to_path_buf)
        .ok_or_else(|| "its cache has no folder".into())
}

/// The configuration's path. The request has no time limit of its own, so it runs in a thread that is
/// left behind.
fn first_answer(repo: ApiRepo) -> Result<PathBuf, String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(repo.get("config.json")));
    match receiver.recv_timeout(PATIENCE) {
        Ok(answer) => answer.map_err(reason),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

fn reason(error: ApiError) -> String {
    if is_missing(&error) {
        return "it has no such model, or the model has no such file (error 404)".into();
    }
    error.to_string()
}

fn is_missing(error: &ApiError) -> bool {
    error.to_string().contains("404")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_a_name_on_the_hub() {
        assert!(is_hub_name("owner/some-model_1.5"));
        for other in ["model", "a/b/c", "../x", "./x", "/x", "a/", "a b/c", "~/x"] {
            assert!(!is_hub_name(other), "{other}");
        }
    }

    #[test]
    fn a_missing_folder_is_an_error_that_names_it() {
        let error = find("no/such/folder").unwrap_err().to_string();
        assert!(error.starts_with("no/such/folder: there is no such folder"));
    }
}
