//! `/openapi.json` as something to hold requests and replies against.
//!
//! Not here: what is asked of the daemons (`openapi`).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::harness::{Answer, Node};

/// Media type of problems.
const PROBLEM_JSON: &str = "application/problem+json";

/// A method, in lower case, and a path as the document has it.
pub(crate) type Operation = (String, String);

/// What is sent along with a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sent<'a> {
    /// No body.
    Nothing,
    /// A body that the document allows.
    Fit(&'a str),
    /// A body that the document does not allow.
    Unfit(&'a str),
}

/// The document, and what has been seen of it.
pub(crate) struct Document {
    pub(crate) text: Value,
    /// Its schemas, with fields of replies that are not in it refused: a reader passes over them, but they must not be there.
    strict: Value,
    validators: RefCell<BTreeMap<String, Validator>>,
    /// The statuses, and the kinds of problems, that each operation has answered with.
    seen: RefCell<BTreeSet<(Operation, String)>>,
}

impl Document {
    /// The document that `node` serves.
    pub(crate) fn of(node: &Node) -> Self {
        let text = node.get("/openapi.json").json();
        let mut strict = text.clone();
        let mut parts = BTreeSet::new();
        parts_of(&text, false, &mut parts);
        // What a part refers to is a part.
        while let Some(more) = parts.iter().find_map(|name| {
            let mut inner = BTreeSet::new();
            parts_of(&json!({ "allOf": [at(&text, &["components", "schemas", name])] }), false, &mut inner);
            let new: BTreeSet<_> = inner.difference(&parts).cloned().collect();
            (!new.is_empty()).then_some(new)
        }) {
            parts.extend(more);
        }
        for (name, schema) in strict["components"]["schemas"].as_object_mut().unwrap() {
            close(schema, parts.contains(name));
        }
        for path in strict["paths"].as_object_mut().unwrap().values_mut() {
            for operation in path.as_object_mut().unwrap().values_mut() {
                for response in operation["responses"].as_object_mut().unwrap().values_mut() {
                    for content in response["content"].as_object_mut().unwrap().values_mut() {
                        close(&mut content["schema"], false);
                    }
                }
            }
        }
        Self { text, strict, validators: RefCell::default(), seen: RefCell::default() }
    }

    /// All operations.
    pub(crate) fn operations(&self) -> BTreeSet<Operation> {
        let paths = self.text["paths"].as_object().unwrap();
        let of = |(path, methods): (&String, &Value)| {
            methods.as_object().unwrap().keys().map(|method| (method.clone(), path.clone())).collect::<Vec<_>>()
        };
        paths.iter().flat_map(of).collect()
    }

    /// Those that may answer with a problem of this kind and status.
    pub(crate) fn that_answer(&self, status: u16, code: &str) -> Vec<Operation> {
        let answers = |operation: &Operation| {
            self.documented(operation).contains(&format!("{status} urn:gossipd:problem:{code}"))
        };
        self.operations().into_iter().filter(answers).collect()
    }

    /// All that an operation may answer with: `200`, `409 urn:…`.
    fn documented(&self, (method, path): &Operation) -> BTreeSet<String> {
        let responses = at(&self.text, &["paths", path, method, "responses"]).as_object().unwrap();
        let mut all = BTreeSet::new();
        for (status, response) in responses {
            match response["content"].get(PROBLEM_JSON) {
                None => drop(all.insert(status.clone())),
                Some(content) => {
                    let kinds = content["schema"]["allOf"][1]["properties"]["type"]["enum"].as_array().unwrap();
                    all.extend(kinds.iter().map(|kind| format!("{status} {}", kind.as_str().unwrap())));
                }
            }
        }
        all
    }

    /// What has not been seen of what is documented: `get /v1/self 500 urn:…`.
    pub(crate) fn unseen(&self) -> BTreeSet<String> {
        let seen = self.seen.borrow();
        let all = self.operations().into_iter().flat_map(|operation| {
            let documented = self.documented(&operation);
            documented.into_iter().map(move |answer| (operation.clone(), answer))
        });
        let unseen = all.filter(|one| !seen.contains(one));
        unseen.map(|((method, path), answer)| format!("{method} {path} {answer}")).collect()
    }

    /// Checks a request and its answer, and says what was answered.
    #[track_caller]
    pub(crate) fn check(&self, operation: &Operation, target: &str, sent: Sent<'_>, answer: &Answer) {
        let (method, path) = operation;
        let what = format!("{method} {target} {sent:?}");
        let described = at(&self.text, &["paths", path, method]);
        assert!(described.is_object(), "{what}: not in the document");
        self.check_body(operation, &what, sent);
        let status = answer.status.to_string();
        let response = at(&self.text, &["paths", path, method, "responses", &status]);
        assert!(response.is_object(), "{what}: status {status} is not documented: {answer:?}");
        let kind = answer.header("content-type").unwrap_or_default().to_owned();
        let pointer = ["paths", path, method, "responses", &status, "content", &kind, "schema"];
        assert!(!at(&self.text, &pointer).is_null(), "{what}: {kind:?} is not documented for {status}: {answer:?}");
        let mut seen = status.clone();
        if kind == PROBLEM_JSON {
            seen = format!("{seen} {}", answer.json()["type"].as_str().unwrap());
        }
        if answer.status == 200 {
            self.check_query(operation, target);
        }
        match kind.as_str() {
            "application/x-ndjson" => {}
            kind if kind.contains("json") => self.fits(&pointer, &answer.json(), &what),
            _ => self.fits(&pointer, &answer.body.as_str().into(), &what),
        }
        self.seen.borrow_mut().insert((operation.clone(), seen));
    }

    #[track_caller]
    fn check_body(&self, (method, path): &Operation, what: &str, sent: Sent<'_>) {
        let request = at(&self.text, &["paths", path, method, "requestBody"]);
        let pointer = ["paths", path, method, "requestBody", "content", "application/json", "schema"];
        match sent {
            Sent::Nothing => assert_ne!(request["required"], true, "{what}: the document asks for a body"),
            Sent::Fit(body) => self.fits(&pointer, &serde_json::from_str(body).unwrap(), what),
            // What is no JSON fits nothing.
            Sent::Unfit(body) => {
                if let Ok(body) = serde_json::from_str(body) {
                    assert!(self.faults(&pointer, &body).is_some(), "{what}: the document allows what is refused");
                }
            }
        }
    }

    /// Checks that what was understood is documented.
    #[track_caller]
    fn check_query(&self, (method, path): &Operation, target: &str) {
        let parameters = at(&self.text, &["paths", path, method, "parameters"]);
        let query = target.split_once('?').map_or("", |(_, query)| query);
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let all = parameters.as_array().unwrap();
            let place = all.iter().position(|one| one["name"] == key && one["in"] == "query");
            let place = place.unwrap_or_else(|| panic!("{target}: {key} is not documented"));
            let value = match all[place]["schema"]["type"].as_str() {
                Some("array") => value.split(',').map(Value::from).collect(),
                Some("integer" | "boolean") => serde_json::from_str(value).unwrap(),
                _ => value.into(),
            };
            self.fits(&["paths", path, method, "parameters", &place.to_string(), "schema"], &value, target);
        }
    }

    /// Checks one line of a stream.
    #[track_caller]
    pub(crate) fn check_line(&self, (method, path): &Operation, line: &Value) {
        let pointer = ["paths", path, method, "responses", "200", "content", "application/x-ndjson", "schema"];
        self.fits(&pointer, line, "a line");
    }

    /// Checks a value against a schema by its name.
    #[track_caller]
    pub(crate) fn check_schema(&self, name: &str, value: &Value) {
        self.fits(&["components", "schemas", name], value, name);
    }

    #[track_caller]
    fn fits(&self, pointer: &[&str], value: &Value, what: &str) {
        if let Some(faults) = self.faults(pointer, value) {
            panic!("{what}: does not fit {}:\n{faults}\n{value:#}", pointer.join(" / "));
        }
    }

    /// Why `value` does not fit the schema that is there; none: it fits.
    fn faults(&self, pointer: &[&str], value: &Value) -> Option<String> {
        let mut validators = self.validators.borrow_mut();
        let validator = validators.entry(pointer.join(" ")).or_insert_with(|| {
            let schema = at(&self.strict, pointer);
            assert!(!schema.is_null(), "there is no schema at {pointer:?}");
            let whole = json!({ "allOf": [schema], "components": self.strict["components"] });
            jsonschema::options()
                .with_draft(jsonschema::Draft::Draft202012)
                .should_validate_formats(true)
                .with_format("socket-address", |text: &str| text.parse::<SocketAddr>().is_ok())
                .with_format("ip-address", |text: &str| text.parse::<IpAddr>().is_ok())
                .build(&whole)
                .unwrap_or_else(|error| panic!("{pointer:?} is no schema: {error}"))
        });
        let faults: Vec<_> =
            validator.iter_errors(value).map(|error| format!("  {}: {error}", error.instance_path())).collect();
        (!faults.is_empty()).then(|| faults.join("\n"))
    }
}

/// What is at a path of keys and indexes; null: nothing.
fn at<'a>(value: &'a Value, keys: &[&str]) -> &'a Value {
    keys.iter().fold(value, |value, key| match (value, key.parse::<usize>()) {
        (Value::Array(items), Ok(index)) => &items[index],
        _ => &value[*key],
    })
}

/// The names of schemas that are put together with others.
fn parts_of(schema: &Value, is_part: bool, parts: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            if let Some(name) = map.get("$ref").and_then(Value::as_str).filter(|_| is_part) {
                parts.insert(name.rsplit('/').next().unwrap().to_owned());
            }
            for (key, value) in map {
                parts_of(value, key == "allOf" || (is_part && matches!(key.as_str(), "oneOf" | "anyOf")), parts);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| parts_of(item, is_part, parts)),
        _ => {}
    }
}

/// Lets no field be in an object that its schema does not list.
fn close(schema: &mut Value, is_part: bool) {
    let Some(map) = schema.as_object_mut() else { return };
    let is_whole =
        (map.contains_key("properties") && !map.contains_key("additionalProperties")) || map.contains_key("allOf");
    for (key, inner) in map.iter_mut() {
        match (key.as_str(), inner) {
            ("allOf", Value::Array(items)) => items.iter_mut().for_each(|item| close(item, true)),
            ("oneOf" | "anyOf", Value::Array(items)) => items.iter_mut().for_each(|item| close(item, is_part)),
            ("properties", Value::Object(fields)) => fields.values_mut().for_each(|field| close(field, false)),
            ("items" | "additionalProperties", inner) => close(inner, false),
            _ => {}
        }
    }
    if is_whole && !is_part {
        map.insert("unevaluatedProperties".to_owned(), false.into());
    }
}
