//! Scenarios: TOML files with variants and parameters, and how one of them and a seed become a plan.
//!
//! A file is read as a table; a variant's table is laid over it; every string `"$name"` is replaced by the parameter of
//! that name; what comes out is a [`file::File`]. `[grid]` makes a variant of each combination of its lists.
//!
//! * `file`: the format; `select`: who is meant; `resolve`: file and seed to plan;
//! * `swizzle`, `small_scope`: scenarios that are made rather than written; `catalogue`: all there are.
//!
//! Not here: what a plan does (`run`).

pub mod catalogue;
pub mod file;
mod resolve;
mod select;
pub mod small_scope;
pub mod swizzle;

use toml::{Table, Value};

use self::file::{File, SweepRange};
use crate::aggregate::SweepBound;
use crate::plan::Plan;

/// A scenario as it is written.
#[derive(Debug, Clone)]
pub struct Scenario {
    table: Table,
}

fn text_of<'a>(table: &'a Table, key: &str) -> &'a str {
    table.get(key).and_then(Value::as_str).unwrap_or_default()
}

impl Scenario {
    /// Reads a file.
    ///
    /// # Errors
    /// It is no TOML.
    pub fn parse(text: &str) -> Result<Self, String> {
        text.parse::<Table>().map(|table| Self { table }).map_err(|error| error.to_string())
    }

    /// `S10`, ….
    pub fn number(&self) -> &str {
        text_of(&self.table, "number")
    }

    /// `one-way-deaf`, ….
    pub fn name(&self) -> &str {
        text_of(&self.table, "name")
    }

    /// One sentence.
    pub fn about(&self) -> &str {
        text_of(&self.table, "about")
    }

    /// All variants; one without a name when there are none.
    pub fn variants(&self) -> Vec<String> {
        if text_of(&self.table, "generate") == "small-scope" {
            return small_scope::names();
        }
        let mut names: Vec<String> = self
            .table
            .get("variants")
            .and_then(Value::as_table)
            .into_iter()
            .flat_map(|all| all.keys().cloned())
            .collect();
        names.extend(self.combinations().into_iter().map(|(name, _)| name));
        if names.is_empty() {
            names.push(String::new());
        }
        names
    }

    /// Those that are cheap enough for every change.
    pub fn quick(&self) -> Vec<String> {
        match self.table.get("quick") {
            Some(Value::Boolean(true)) => self.variants(),
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        }
    }

    /// The variant that is meant when none is named.
    pub fn default_variant(&self) -> String {
        match text_of(&self.table, "default") {
            "" => self.variants().first().cloned().unwrap_or_default(),
            name => name.to_owned(),
        }
    }

    /// Spells it out for one variant and one seed.
    ///
    /// # Errors
    /// There is no such variant, or the file does not make sense.
    pub fn plan(&self, variant: &str, seed: u64) -> Result<Plan, String> {
        let label = if variant.is_empty() { self.number().to_owned() } else { format!("{}@{variant}", self.number()) };
        let wrong = |error: String| format!("{label} {}: {error}", self.name());
        if text_of(&self.table, "generate") == "small-scope" {
            return small_scope::plan(&label, self.about(), variant, seed).map_err(wrong);
        }
        let file = self.file(variant).map_err(wrong)?;
        let plan = resolve::resolve(&file, &label, seed).map_err(wrong)?;
        plan.check().map_err(wrong)?;
        Ok(plan)
    }

    /// Bounds over all runs of a sweep.
    ///
    /// # Errors
    /// There is no such variant, or the file does not make sense.
    pub fn sweep_bounds(&self, variant: &str) -> Result<Vec<SweepBound>, String> {
        if text_of(&self.table, "generate") == "small-scope" {
            return Ok(Vec::new());
        }
        let bounds = self.file(variant)?.expect_sweep;
        Ok(bounds.into_iter().map(|(name, SweepRange { median, max })| SweepBound { name, median, max }).collect())
    }

    fn file(&self, variant: &str) -> Result<File, String> {
        let mut table = self.table.clone();
        let variants = table.remove("variants");
        table.remove("grid");
        table.remove("default");
        table.remove("quick");
        if !variant.is_empty() {
            let named =
                variants.as_ref().and_then(Value::as_table).and_then(|all| all.get(variant)).and_then(Value::as_table);
            let combined = self.combinations().into_iter().find(|(name, _)| name == variant).map(|(_, table)| table);
            let over = named.cloned().or(combined).ok_or_else(|| format!("no variant {variant}"))?;
            lay_over(&mut table, over);
        }
        let params = table.remove("params").and_then(|params| params.as_table().cloned()).unwrap_or_default();
        let table = substitute(Value::Table(table), &params)?;
        table.try_into::<File>().map_err(|error| error.to_string())
    }

    /// A variant for each combination of the lists in `[grid]`.
    fn combinations(&self) -> Vec<(String, Table)> {
        let Some(grid) = self.table.get("grid").and_then(Value::as_table) else { return Vec::new() };
        let mut all: Vec<(String, Table)> = vec![(String::new(), Table::new())];
        for (key, values) in grid {
            let values = values.as_array().cloned().unwrap_or_default();
            all = all
                .into_iter()
                .flat_map(|(name, table)| {
                    values
                        .iter()
                        .map(move |value| {
                            let mut table = table.clone();
                            table.insert(key.clone(), value.clone());
                            let dash = if name.is_empty() { "" } else { "-" };
                            (format!("{name}{dash}{key}{}", value.to_string().trim_matches('"')), table)
                        })
                        .collect::<Vec<_>>()
                })
                .collect();
        }
        let params = |table| Table::from_iter([("params".to_owned(), Value::Table(table))]);
        all.into_iter().map(|(name, table)| (name, params(table))).collect()
    }
}

fn lay_over(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => lay_over(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

fn substitute(value: Value, params: &Table) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => match text.strip_prefix('$') {
            Some(name) => params.get(name).cloned().ok_or_else(|| format!("no parameter {name}"))?,
            None => Value::String(text),
        },
        Value::Array(values) => {
            Value::Array(values.into_iter().map(|value| substitute(value, params)).collect::<Result<_, _>>()?)
        }
        Value::Table(table) => Value::Table(
            table
                .into_iter()
                .map(|(key, value)| Ok((key, substitute(value, params)?)))
                .collect::<Result<_, String>>()?,
        ),
        other => other,
    })
}
