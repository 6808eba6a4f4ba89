//! What a causal language model learns: text, completions, conversations.

use std::path::Path;

use lora_pro_core::Error;
use serde::{Deserialize, Serialize};

use super::file::{Format, read_text};
use super::labelled::hash_text;
use super::rows::json_error;

/// One example for a causal language model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LanguageExample {
    /// Text, all of which is learned.
    Text(String),
    /// Only the completion is learned.
    Completion {
        /// What is given. It may be empty.
        prompt: String,
        /// What follows.
        completion: String,
    },
    /// Only the assistant's turns are learned.
    Chat(Vec<Message>),
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

/// Who speaks in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions for the assistant.
    System,
    /// The one who asks.
    User,
    /// The model.
    Assistant,
}

/// How a model marks the turns of a conversation: `{role}` stands for the role's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatTemplate {
    /// Before a turn.
    pub before: String,
    /// The end of a turn, which the model learns to write after its own.
    pub end: String,
    /// Between turns.
    pub after: String,
}

/// A stretch of text that is learned or only read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The text.
    pub text: String,
    /// Whether its tokens count in the loss.
    pub trained: bool,
}

/// The examples of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanguageDataset {
    /// The file's path.
    pub name: String,
    /// In the order of the file.
    pub examples: Vec<LanguageExample>,
}

/// A line as it is written; keys that are not listed are left out.
#[derive(Deserialize)]
struct Line {
    text: Option<String>,
    prompt: Option<String>,
    completion: Option<String>,
    messages: Option<Vec<Message>>,
}

impl LanguageDataset {
    /// The examples of a JSON-lines file. Each line is an object with `prompt` and `completion`, with
    /// `messages` (a list of `role` and `content`; roles `system`, `user`, `assistant`), or with
    /// `text`.
    ///
    /// An error names file and line: for what is no such object, for an empty completion or text, for
    /// a conversation without a turn of the assistant.
    pub fn read(path: &Path) -> Result<Self, Error> {
        if Format::of(path)? != Format::JsonLines {
            let reason = "a causal language model learns from JSON lines (.jsonl)";
            return Err(Error::file(path, reason));
        }
        let text = read_text(path)?;
        let lines = (1..).zip(text.lines());
        let examples = lines
            .filter(|(_, text)| !text.trim().is_empty())
            .map(|(number, text)| {
                let line =
                    serde_json::from_str(text).map_err(|error| json_error(number, &error))?;
                example(line).map_err(|reason| format!("line {number}: {reason}"))
            })
            .collect::<Result<_, String>>()
            .map_err(|reason| Error::file(path, reason))?;
        let name = path.display().to_string();
        Ok(LanguageDataset { name, examples })
    }

    /// CRC-32 of all examples: a resumed run asks for the data it began with.
    pub fn checksum(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        for example in &self.examples {
            match example {
                LanguageExample::Text(text) => {
                    hasher.update(&[0]);
                    hash_text(&mut hasher, text);
                }
                LanguageExample::Completion { prompt, completion } => {
                    hasher.update(&[1]);
                    hash_text(&mut hasher, prompt);
                    hash_text(&mut hasher, completion);
                }
                LanguageExample::Chat(messages) => {
                    hasher.update(&[2]);
                    hasher.update(&(messages.len() as u64).to_le_bytes());
                    for message in messages {
                        hasher.update(&[message.role as u8]);
                        hash_text(&mut hasher, &message.content);
                    }
                }
            }
        }
        hasher.finalize()
    }
}

fn example(line: Line) -> Result<LanguageExample, String> {
    match line {
        Line { text: Some(text), prompt: None, completion: None, messages: None } => {
            filled("text", &text)?;
            Ok(LanguageExample::Text(text))
        }
        Line { text: None, prompt: Some(prompt), completion: Some(completion), messages: None } => {
            filled("completion", &completion)?;
            Ok(LanguageExample::Completion { prompt, completion })
        }
        Line { text: None, prompt: None, completion: None, messages: Some(messages) } => {
            let mut turns = messages.iter().filter(|message| message.role == Role::Assistant);
            let turn = turns.clone().next();
            turn.ok_or("no turn of the conversation is the assistant's: there is nothing to learn")?;
            turns.try_for_each(|message| filled("content of an assistant's turn", &message.content))?;
            Ok(LanguageExample::Chat(messages))
        }
        _ => Err("it must have `prompt` and `completion`, or `messages`, or `text`, and only one of these".into()),
    }
}

fn filled(what: &str, text: &str) -> Result<(), String> {
    match text.trim().is_empty() {
        true => Err(format!("the {what} is empty")),
        false => Ok(()),
    }
}

impl Role {
    /// `system`, `user` or `assistant`.
    pub fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }
}

impl ChatTemplate {
    /// ChatML, which SmolLM2 and Qwen2 were trained with:
    /// `<|im_start|>user\nHello<|im_end|>\n`.
    pub fn chat_ml() -> Self {
        ChatTemplate {
            before: "<|im_start|>{role}\n".into(),
            end: "<|im_end|>".into(),
            after: "\n".into(),
        }
    }

    /// What stands before the answer of the assistant to `messages`: the prompt for a model.
    pub fn prompt(&self, messages: &[Message]) -> String {
        let turn = |message: &Message| {
            let (before, content) = (self.header(message.role), &message.content);
            format!("{before}{content}{}{}", self.end, self.after)
        };
        let turns: String = messages.iter().map(turn).collect();
        turns + &self.header(Role::Assistant)
    }

    fn header(&self, role: Role) -> String {
        self.before.replace("{role}", role.name())
    }
}

impl LanguageExample {
    /// The example as text that is learned and text that is only read, by turns. The token for the end
    /// of a text is the tokenizer's, and is not among them.
    ///
    /// ```
    /// use lora_pro_finetune::{ChatTemplate, LanguageExample, Message, Role};
    /// let message = |role, content: &str| Message { role, content: content.into() };
    /// let chat = LanguageExample::Chat(vec![
    ///     message(Role::User, "3 + 4?"),
    ///     message(Role::Assistant, "7"),
    /// ]);
    /// let segments = chat.segments(&ChatTemplate::chat_ml());
    /// let read = "<|im_start|>user\n3 + 4?<|im_end|>\n<|im_start|>assistant\n";
    /// assert_eq!((segments[0].text.as_str(), segments[0].trained), (read, false));
    /// assert_eq!((segments[1].text.as_str(), segments[1].trained), ("7<|im_end|>", true));
    /// ```
    pub fn segments(&self, template: &ChatTemplate) -> Vec<Segment> {
        let mut segments = Segments::default();
        match self {
            LanguageExample::Text(text) => segments.add(text, true),
            LanguageExample::Completion { prompt, completion } => {
                segments.add(prompt, false);
                segments.add(completion, true);
            }
            LanguageExample::Chat(messages) => {
                for message in messages {
                    let trained = message.role == Role::Assistant;
                    segments.add(&template.header(message.role), false);
                    segments.add(&message.content, trained);
                    segments.add(&template.end, trained);
                    segments.add(&template.after, false);
                }
            }
        }
        segments.0
    }
}

#[derive(Default)]
struct Segments(Vec<Segment>);

impl Segments {
    /// Text of the same kind as the last is joined to it.
    fn add(&mut self, text: &str, trained: bool) {
        match self.0.last_mut() {
            _ if text.is_empty() => {}
            Some(last) if last.trained == trained => last.text.push_str(text),
            _ => self.0.push(Segment {
                text: text.into(),
                trained,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(example: &LanguageExample) -> String {
        let mark = |segment: Segment| match segment.trained {
            true => format!("[{}]", segment.text),
            false => segment.text,
        };
        let segments = example.segments(&ChatTemplate::chat_ml());
        segments.into_iter().map(mark).collect()
    }

    #[test]
    fn only_what_the_assistant_says_is_learned() {
        let line = r#"{"messages": [
            {"role": "system", "content": "Be short."}, {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"},
            {"role": "assistant", "content": "d"}]}"#;
        let chat = example(serde_json::from_str(line).unwrap()).unwrap();
        assert_eq!(
            marked(&chat),
            "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\na<|im_end|>\n\
             <|im_start|>assistant\n[b<|im_end|>]\n<|im_start|>user\nc<|im_end|>\n\
             <|im_start|>assistant\n[d<|im_end|>]\n"
        );
        let LanguageExample::Chat(messages) = &chat else {
            panic!("{chat:?}")
        };
        let prompt = ChatTemplate::chat_ml().prompt(&messages[..4]);
        let whole: String = chat
            .segments(&ChatTemplate::chat_ml())
            .into_iter()
            .map(|s| s.text)
            .collect();
        assert_eq!(whole, prompt + "d<|im_end|>\n");
    }

    #[test]
    fn only_the_completion_is_learned() {
        let (prompt, completion) = ("2 + 2 =".to_string(), " 4".to_string());
        assert_eq!(
            marked(&LanguageExample::Completion { prompt, completion }),
            "2 + 2 =[ 4]"
        );
        let (prompt, completion) = (String::new(), "4".to_string());
        assert_eq!(
            marked(&LanguageExample::Completion { prompt, completion }),
            "[4]"
        );
        assert_eq!(marked(&LanguageExample::Text("all".into())), "[all]");
    }
}
