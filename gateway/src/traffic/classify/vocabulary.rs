//! What a condition may say: the names, functions and operators that can be evaluated, and in bounded
//! time. In comes a parsed condition; out comes whether it reads the payload, or what to write
//! instead.

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue};

use super::bounds::ADDITIONS_MAX;

/// What conditions may call, as `f(x)`, with one argument.
const FUNCTIONS: [&str; 9] = [
    "size", "string", "bool", "double", "int", "uint", "bytes", "type", "dyn",
];
/// What conditions may call on a value, as `x.f(...)`, and with how many arguments.
const METHODS: [(&str, usize); 4] = [
    ("size", 0),
    ("contains", 1),
    ("startsWith", 1),
    ("endsWith", 1),
];
/// Operators, as the parser names them.
const OPERATORS: [&str; 17] = [
    "_?_:_", "_&&_", "_||_", "!_", "_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "@in", ADD, "_-_",
    "_*_", "_/_", "_%_", "-_",
];
const ADD: &str = "_+_";
const INDEX: &str = "_[_]";
/// Macros over collections: their cost is the collection's size to the power of their nesting.
const UNBOUNDED: [&str; 6] = ["all", "exists", "exists_one", "existsOne", "map", "filter"];
/// Names that are not fields: the two variables, and types to compare `type(x)` with.
const NAMES: [&str; 12] = [
    "payload",
    "topic",
    "bool",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "list",
    "map",
    "null_type",
    "type",
];

/// Checks a condition; says whether it reads `payload`.
///
/// # Errors
/// What cannot be taken, and what to write instead, as a sentence.
pub(super) fn check(condition: &IdedExpr) -> Result<bool, String> {
    let mut check = Check::default();
    check.root(condition)?;
    Ok(check.reads_payload)
}

/// Walks a parsed condition and refuses what could not be evaluated, or not in bounded time.
#[derive(Default)]
struct Check {
    reads_payload: bool,
    additions: usize,
}

impl Check {
    fn root(&mut self, expression: &IdedExpr) -> Result<(), String> {
        self.expression(expression)?;
        match &expression.expr {
            Expr::Literal(LiteralValue::Boolean(_)) => Ok(()),
            Expr::Literal(_) | Expr::List(_) | Expr::Map(_) => {
                Err("the condition is never true or false; compare something with it".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn expression(&mut self, expression: &IdedExpr) -> Result<(), String> {
        match &expression.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => self.expression(&select.operand),
            Expr::Call(call) => self.call(call),
            Expr::List(list) => list.elements.iter().try_for_each(|e| self.expression(e)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.expression(&entry.key)?;
                    self.expression(&entry.value)
                }
                EntryExpr::StructField(_) => Err(no_struct()),
            }),
            Expr::Struct(_) => Err(no_struct()),
            Expr::Comprehension(_) => Err(unbounded("it")),
            Expr::Unspecified => Err("the condition is incomplete".to_owned()),
        }
    }

    fn name(&mut self, name: &str) -> Result<(), String> {
        self.reads_payload |= name == "payload";
        if NAMES.contains(&name) {
            return Ok(());
        }
        Err(format!(
            "the condition asks for `{name}`, which does not exist; it knows `payload` and `topic`; write `payload.{name}` for a field, quotes for a text"
        ))
    }

    fn call(&mut self, call: &CallExpr) -> Result<(), String> {
        known(call)?;
        self.additions += usize::from(call.func_name == ADD);
        if self.additions > ADDITIONS_MAX {
            return Err(format!(
                "the condition adds more than {ADDITIONS_MAX} times; compare before adding, or let the device add"
            ));
        }
        call.target
            .as_deref()
            .into_iter()
            .chain(&call.args)
            .try_for_each(|part| self.expression(part))
    }
}

fn known(call: &CallExpr) -> Result<(), String> {
    let (name, given) = (call.func_name.as_str(), call.args.len());
    let operator = OPERATORS.contains(&name) || name == INDEX;
    let function = FUNCTIONS.contains(&name) && given == 1;
    let method = METHODS.contains(&(name, given));
    if match call.target {
        None => operator || function,
        Some(_) => method,
    } {
        return Ok(());
    }
    Err(match name {
        _ if UNBOUNDED.contains(&name) => unbounded(&format!("`{name}`")),
        "matches" => "`matches` is not taken: a regular expression would be compiled anew for every message; use startsWith, endsWith, contains or `in`".to_owned(),
        "has" => "has() takes one field, as in has(payload.temp)".to_owned(),
        _ if METHODS.iter().any(|(known, _)| *known == name) => {
            format!("`{name}` is called on a value, as in `payload.name.{name}(...)`, with its own number of arguments")
        }
        _ if FUNCTIONS.contains(&name) => {
            format!("`{name}` is called with one argument, as in `{name}(payload.x)`")
        }
        _ => format!(
            "the condition calls `{name}`, which does not exist; it knows has, {}, contains, startsWith and endsWith",
            FUNCTIONS.join(", ")
        ),
    })
}

fn unbounded(what: &str) -> String {
    format!(
        "{what} walks a whole collection, and how long that takes is up to the sender; name the element, as in `payload.list[0]`, or use `in`"
    )
}

fn no_struct() -> String {
    "the condition makes a message; conditions know JSON only".to_owned()
}
