//! The rows of CSV and TSV.

/// The fields of a row, and the line on which the row begins, counted from 1.
pub(super) type Record = (usize, Vec<String>);

/// The rows of CSV as of RFC 4180: a field in quotes may hold commas, line breaks and doubled quotes.
/// Blank lines are left out.
///
/// An error names the line, for a quote that is never closed or closed before the field's end: read
/// leniently, it would swallow rows in silence.
pub(super) fn csv(text: &str) -> Result<Vec<Record>, String> {
    check_quotes(text)?;
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(text.as_bytes());
    let record = |record: Result<csv::StringRecord, csv::Error>| {
        let record = record.map_err(|error| error.to_string())?;
        let line = record
            .position()
            .map_or(0, |position| first_line(text, position));
        Ok((line, record.iter().map(str::to_owned).collect()))
    };
    reader.records().map(record).collect()
}

/// The line of a record's first character: the reader's position may lie before line breaks that end
/// the previous record, or that are blank lines.
fn first_line(text: &str, position: &csv::Position) -> usize {
    let rest = text.as_bytes().iter().skip(position.byte() as usize);
    let breaks = rest.take_while(|byte| matches!(byte, b'\r' | b'\n'));
    position.line() as usize + breaks.filter(|byte| **byte == b'\n').count()
}

/// The rows of TSV: a line is a row. A field that is wholly in quotes, those inside doubled, loses
/// them; other quotes are ordinary characters, as in the files of GLUE. Blank lines are left out.
pub(super) fn tsv(text: &str) -> Vec<Record> {
    let lines = (1..).zip(text.lines());
    lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| (number, line.split('\t').map(unquoted).collect()))
        .collect()
}

fn unquoted(field: &str) -> String {
    let inner = field
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    match inner {
        Some(inner) if !inner.replace("\"\"", "").contains('"') => inner.replace("\"\"", "\""),
        _ => field.to_owned(),
    }
}

/// Where a reader of CSV stands.
#[derive(Clone, Copy, PartialEq)]
enum At {
    Start,
    Plain,
    Quoted,
    /// After a quote within quotes: the field's end, or the first of two.
    Quote,
}

fn check_quotes(text: &str) -> Result<(), String> {
    let (mut at, mut line, mut opened) = (At::Start, 1, 1);
    for byte in text.bytes() {
        at = match (at, byte) {
            (At::Start, b'"') => {
                opened = line;
                At::Quoted
            }
            (At::Quoted, b'"') => At::Quote,
            (At::Quote, b'"') | (At::Quoted, _) => At::Quoted,
            (_, b',' | b'\n' | b'\r') => At::Start,
            (At::Quote, _) => {
                return Err(format!(
                    "line {line}: a quote closes a field that goes on; double the quotes inside of a field"
                ));
            }
            (At::Start | At::Plain, _) => At::Plain,
        };
        line += usize::from(byte == b'\n');
    }
    match at {
        At::Quoted => Err(format!("line {opened}: a quote is opened and never closed")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(records: &[Record]) -> Vec<(usize, Vec<&str>)> {
        let row = |(line, fields): &'_ Record| (*line, fields.len());
        assert!(
            records
                .iter()
                .map(row)
                .all(|(line, count)| line > 0 && count > 0)
        );
        records
            .iter()
            .map(|(line, fields)| (*line, fields.iter().map(String::as_str).collect()))
            .collect()
    }

    #[test]
    fn csv_has_quotes_commas_and_line_breaks_in_fields() {
        let text = "a,b\r\n\"x, \"\"y\"\"\",1\r\n\r\n\"two\nlines\",2\r\nit's 5\" long,3\r\n,\r\n";
        assert_eq!(
            fields(&csv(text).unwrap()),
            [
                (1, vec!["a", "b"]),
                (2, vec!["x, \"y\"", "1"]),
                (4, vec!["two\nlines", "2"]),
                (6, vec!["it's 5\" long", "3"]),
                (7, vec!["", ""]),
            ]
        );
    }

    #[test]
    fn csv_with_a_wrong_quote_is_refused_with_its_line() {
        let open = csv("a,b\n1,x\n2,\"y\n3,z\n").unwrap_err();
        assert_eq!(open, "line 3: a quote is opened and never closed");
        let swallowed = csv("a,b\n1,\"x\n2,\"y\n").unwrap_err();
        assert!(swallowed.starts_with("line 3: a quote closes a field that goes on"));
    }

    #[test]
    fn tsv_has_quotes_as_they_are_unless_they_enclose_a_field() {
        let text =
            "a\tb\r\n\"open\t5\" long\r\n\r\n\"he said \"\"so\"\"\"\t\"a\" and \"b\"\n\"\t\"\"\n";
        assert_eq!(
            fields(&tsv(text)),
            [
                (1, vec!["a", "b"]),
                (2, vec!["\"open", "5\" long"]),
                (4, vec!["he said \"so\"", "\"a\" and \"b\""]),
                (5, vec!["\"", ""]),
            ]
        );
    }
}
