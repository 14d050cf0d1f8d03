//! `--filter key=value` of listings, as Docker has it: values of one key are alternatives, different keys must all fit.

use crate::api::MemberFilter;
use crate::record::{Availability, RecordError, Role, Status};

/// The keys that `members` can be filtered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Status,
    Role,
    Availability,
    Name,
    Id,
}

const KEYS: [(&str, Key); 5] = [
    ("status", Key::Status),
    ("role", Key::Role),
    ("availability", Key::Availability),
    ("name", Key::Name),
    ("id", Key::Id),
];

/// One `key=value` of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    key: Key,
    value: String,
}

/// Reads a condition and checks its words, so that a misspelt one is wrong usage and never an empty list.
pub(super) fn condition(text: &str) -> Result<Condition, String> {
    let allowed = || KEYS.map(|(name, _)| name).join(", ");
    let Some((name, value)) = text.split_once('=') else {
        return Err(format!("expected KEY=VALUE with one of the keys {}", allowed()));
    };
    let Some((_, key)) = KEYS.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name.trim())) else {
        return Err(format!("unknown key {name:?}: expected one of {}", allowed()));
    };
    let values: Vec<&str> = value.split(',').map(str::trim).collect();
    for value in &values {
        let word = match key {
            Key::Status => value.parse::<Status>().map(drop),
            Key::Role => value.parse::<Role>().map(drop),
            Key::Availability => value.parse::<Availability>().map(drop),
            Key::Name | Key::Id => Ok(()),
        };
        word.map_err(|error| error.to_string())?;
        if value.is_empty() {
            return Err(format!("the value of {name} is empty"));
        }
    }
    Ok(Condition { key, value: values.join(",") })
}

/// Reads a condition of `watch`, which knows statuses only.
pub(super) fn watch_condition(text: &str) -> Result<Vec<Status>, String> {
    let Condition { key, value } = condition(text)?;
    if key != Key::Status {
        return Err("expected status=VALUE: nothing else can be watched for".to_owned());
    }
    value.split(',').map(|word| word.parse().map_err(|error: RecordError| error.to_string())).collect()
}

/// All conditions together, as the API takes them.
pub(super) fn combine(conditions: &[Condition]) -> MemberFilter {
    let mut filter = MemberFilter::default();
    for Condition { key, value } in conditions {
        let field = match key {
            Key::Status => &mut filter.status,
            Key::Role => &mut filter.role,
            Key::Availability => &mut filter.availability,
            Key::Name => &mut filter.name,
            Key::Id => &mut filter.id,
        };
        match field {
            Some(alternatives) => {
                alternatives.push(',');
                alternatives.push_str(value);
            }
            None => *field = Some(value.clone()),
        }
    }
    filter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_or_refused_with_what_is_allowed() {
        type Read = Result<(Key, &'static str), String>;
        let keys = "status, role, availability, name, id";
        let cases: &[(&str, Read)] = &[
            ("status=ready", Ok((Key::Status, "ready"))),
            ("STATUS=Ready", Ok((Key::Status, "Ready"))),
            ("status=ready, down", Ok((Key::Status, "ready,down"))),
            ("role=manager", Ok((Key::Role, "manager"))),
            ("availability=drain", Ok((Key::Availability, "drain"))),
            ("name=web", Ok((Key::Name, "web"))),
            ("name=a=b", Ok((Key::Name, "a=b"))),
            ("id=asq", Ok((Key::Id, "asq"))),
            ("status=dead", Err("\"dead\" is not a status: expected one of ready, suspect, down, left".into())),
            ("status=", Err("\"\" is not a status: expected one of ready, suspect, down, left".into())),
            ("role=boss", Err("\"boss\" is not a role: expected one of worker, manager".into())),
            ("name=", Err("the value of name is empty".into())),
            ("label=a", Err(format!("unknown key \"label\": expected one of {keys}"))),
            ("=a", Err(format!("unknown key \"\": expected one of {keys}"))),
            ("ready", Err(format!("expected KEY=VALUE with one of the keys {keys}"))),
        ];
        for (text, expected) in cases {
            let expected = expected.clone().map(|(key, value)| Condition { key, value: value.to_owned() });
            assert_eq!(condition(text), expected, "{text:?}");
        }
    }

    #[test]
    fn statuses_can_be_watched_for() {
        assert_eq!(watch_condition("status=ready,DOWN"), Ok(vec![Status::Ready, Status::Down]));
        assert_eq!(
            watch_condition("role=worker").unwrap_err(),
            "expected status=VALUE: nothing else can be watched for"
        );
        assert!(watch_condition("status=dead").unwrap_err().contains("is not a status"));
    }

    #[test]
    fn one_key_twice_means_either() {
        let conditions: Vec<Condition> =
            ["status=down", "role=manager", "status=suspect"].iter().map(|text| condition(text).unwrap()).collect();
        let expected = MemberFilter {
            status: Some("down,suspect".into()),
            role: Some("manager".into()),
            ..MemberFilter::default()
        };
        assert_eq!(combine(&conditions), expected);
    }
}
