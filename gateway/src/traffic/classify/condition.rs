//! A rule's `when`: a CEL expression over `payload` (parsed JSON) and `topic`. In comes the
//! operator's text, compiled once when the rules are; out comes true, false, or why it could not be
//! told. What has no cost bound is refused when it is compiled: macros over collections, and regular
//! expressions, which the library would compile anew for every message. What is left costs at most
//! its own length times the payload's.
//!
//! A JSON number is a double, whole or not, as CEL defines it: were `20` an int and `20.5` a double,
//! `payload.temp * 1.8 > 40.0` would be unreadable for whole values only, and an alarm would be
//! missed on some days. Comparing with ints works (`payload.code == 5`); calculating with them does
//! not, whatever the value.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue};
use cel::common::types::{CelBool, CelDouble, CelList, CelMap, CelMapKey, CelNull, CelString};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::parser::Macro;
use cel::{Context, Env, ParseErrors, Value};
use serde_json::Value as Json;

use super::reading::{Payload, Unreadable};

/// Longest condition in bytes.
pub(super) const CONDITION_BYTES_MAX: usize = 4096;
/// Most words and signs of a condition. A chain of operators becomes a tree as deep as the chain is
/// long, and parser and interpreter recurse: this bounds their stack (and the parser's time) long
/// before the 2 MiB of a thread. Some sixteen comparisons joined by `&&` fit.
pub(super) const TOKENS_MAX: usize = 256;
/// Deepest nesting of brackets, for the same reason.
pub(super) const NESTING_MAX: usize = 16;
/// Most `+` of a condition: each may copy a list or a text of the payload once more.
pub(super) const ADDITIONS_MAX: usize = 16;

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

/// CEL as conditions speak it: what a fresh context would cost for each message (29 us) is paid
/// once for all rules.
pub(super) struct Language {
    env: Arc<Env>,
    context: Context<'static, 'static>,
}

impl Default for Language {
    fn default() -> Self {
        let mut env = Env::default().with_optional_support(false).with_stdlib();
        // The only macro. An `Env::default` has none, so this cannot be a duplicate.
        let added = env.add_macro(has());
        debug_assert!(added.is_ok(), "{added:?}");
        let env = Arc::new(env);
        Self {
            context: Context::with_env(Arc::clone(&env)),
            env,
        }
    }
}

impl fmt::Debug for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Language")
    }
}

/// A compiled condition.
#[derive(Debug)]
pub(super) struct Condition {
    text: Box<str>,
    expression: IdedExpr,
    reads_payload: bool,
}

/// What conditions see of one message. The payload is read when the first one asks.
pub(super) struct Scope<'m> {
    topic: CelString<'m>,
    payload: &'m Payload<'m>,
    value: OnceLock<Box<dyn Val + 'm>>,
}

impl Condition {
    /// Compiles a condition.
    ///
    /// # Errors
    /// What is wrong, and what to write instead, as a sentence.
    pub(super) fn compile(text: &str, language: &Language) -> Result<Self, String> {
        check_size(text)?;
        let expression = language
            .env
            .parser()
            .max_recursion_depth(NESTING_MAX as u16 * 2)
            .error_recovery_limit(1)
            .parse(text)
            .map_err(|errors| syntax(text, &errors))?;
        let mut check = Check::default();
        check.root(&expression)?;
        Ok(Self {
            text: text.into(),
            expression,
            reads_payload: check.reads_payload,
        })
    }

    /// The condition as written.
    #[must_use]
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it asks for `payload` at all.
    #[must_use]
    pub(super) const fn reads_payload(&self) -> bool {
        self.reads_payload
    }

    /// Whether it holds.
    ///
    /// # Errors
    /// When that cannot be told from this payload.
    pub(super) fn holds(&self, language: &Language, scope: &Scope<'_>) -> Result<bool, Unreadable> {
        if self.reads_payload {
            scope.read()?;
        }
        let mut context = language.context.new_inner_scope();
        context.set_variable_resolver(scope);
        let result = Value::resolve_val(&self.expression, &context)
            .map_err(|why| Unreadable::Evaluation(Arc::new(why)))?;
        match result.downcast_ref::<CelBool>() {
            Some(truth) => Ok(*truth.inner()),
            None => Err(Unreadable::NotBool(result.get_type().name().to_owned())),
        }
    }
}

impl<'m> Scope<'m> {
    /// A message's topic and payload.
    #[must_use]
    pub(super) fn new(topic: &'m str, payload: &'m Payload<'m>) -> Self {
        Self {
            topic: CelString::from(topic),
            payload,
            value: OnceLock::new(),
        }
    }

    fn read(&self) -> Result<(), Unreadable> {
        if self.value.get().is_none() {
            let json = self.payload.json()?;
            self.value.get_or_init(|| value(json));
        }
        Ok(())
    }
}

impl VariableResolver for Scope<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        match variable {
            "payload" => self.value.get().map(|v| CowVal::Borrowed(v.as_ref())),
            "topic" => Some(CowVal::Borrowed(&self.topic)),
            _ => None,
        }
    }
}

/// JSON as CEL sees it; texts are borrowed. Recursion is bounded by the parser of the JSON (128).
fn value(json: &Json) -> Box<dyn Val + '_> {
    match json {
        Json::Null => Box::new(CelNull),
        Json::Bool(truth) => Box::new(CelBool::from(*truth)),
        Json::Number(number) => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
        Json::String(text) => Box::new(CelString::from(text.as_str())),
        Json::Array(items) => Box::new(CelList::from(items.iter().map(value).collect::<Vec<_>>())),
        Json::Object(fields) => Box::new(CelMap::from(
            fields
                .iter()
                .map(|(name, field)| (CelMapKey::from(name.as_str()), value(field)))
                .collect::<HashMap<_, _>>(),
        )),
    }
}

/// `has(payload.a.b)`: whether `b` is there; the library's own comes only with the macros over
/// collections.
fn has() -> Macro {
    Macro::global("has", 1, |helper, _, arguments| {
        let argument = arguments.pop().unwrap_or_default();
        match argument.expr {
            Expr::Select(mut select) => {
                select.test = true;
                Ok(Some(helper.next_expr(Expr::Select(select))))
            }
            _ => Err(helper.new_error(argument.id, "has() takes a field, as in has(payload.temp)")),
        }
    })
}

/// Bounds the text before the parser, which recurses, sees it. Quotes are not looked at, so that no
/// disagreement about where a text ends can get past.
fn check_size(text: &str) -> Result<(), String> {
    if text.len() > CONDITION_BYTES_MAX {
        return Err(format!(
            "the condition has {} bytes; at most {CONDITION_BYTES_MAX} are taken; split it over two rules",
            text.len()
        ));
    }
    let tokens = tokens(text);
    if tokens > TOKENS_MAX {
        return Err(format!(
            "the condition has {tokens} words and signs; at most {TOKENS_MAX} are taken; split it over two rules"
        ));
    }
    let (mut depth, mut deepest) = (0_usize, 0_usize);
    for character in text.chars() {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    if deepest > NESTING_MAX {
        return Err(format!(
            "the condition nests {deepest} brackets; at most {NESTING_MAX} are taken"
        ));
    }
    Ok(())
}

/// At least as many as the parser will find: each run of letters and digits, each other character.
fn tokens(text: &str) -> usize {
    let mut in_word = false;
    text.chars()
        .filter(|c| {
            let word = c.is_alphanumeric() || *c == '_';
            let first = !(word && in_word);
            in_word = word;
            first && !c.is_whitespace()
        })
        .count()
}

fn syntax(text: &str, errors: &ParseErrors) -> String {
    let Some(first) = errors.errors.first() else {
        return "the condition is not CEL".to_owned();
    };
    let said = first
        .msg
        .strip_prefix("Syntax error: ")
        .unwrap_or(&first.msg);
    let said: String = said.chars().take(160).collect();
    match first.pos {
        (line, column) if line > 0 && first.source.is_none() => {
            let place = if text.contains('\n') {
                format!("line {line}, column {column}")
            } else {
                format!("column {column}")
            };
            format!("syntax error at {place} of the condition: {said}")
        }
        _ => "the condition is not CEL: it nests too deeply or breaks off".to_owned(),
    }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn holds(text: &str, payload: &str) -> Result<bool, Unreadable> {
        let language = Language::default();
        let condition = Condition::compile(text, &language).unwrap();
        evaluate(&condition, &language, payload.as_bytes())
    }

    fn evaluate(
        condition: &Condition,
        language: &Language,
        payload: &[u8],
    ) -> Result<bool, Unreadable> {
        let payload = Payload::new(payload);
        condition.holds(language, &Scope::new("plant/7/vibration", &payload))
    }

    fn refused(text: &str) -> String {
        Condition::compile(text, &Language::default()).unwrap_err()
    }

    #[test]
    fn what_a_condition_can_ask() {
        let payload = r#"{"rms":7.5,"whole":20,"name":"pump 7","tags":["a","b"],"on":true,
                          "deep":{"x":null},"big":12345678901}"#;
        for text in [
            "payload.rms > 7.1",
            "payload.rms > 7",
            "payload.whole == 20",
            "payload.whole == 20.0",
            "payload.whole * 1.8 + 32.0 > 60.0",
            "int(payload.whole) % 2 == 0",
            "payload.big == 12345678901",
            "payload.on",
            "!has(payload.off) || payload.off",
            "has(payload.deep.x) && payload.deep.x == null",
            "payload.name.startsWith('pump') && payload.name.endsWith('7')",
            "payload.name.contains(\"mp\") && size(payload.name) == 6",
            "'b' in payload.tags && payload.tags[0] == 'a' && payload.tags.size() == 2",
            "payload.tags == ['a', 'b']",
            "payload.deep == {'x': null}",
            "'rms' in payload",
            "payload['rms'] == 7.5",
            "payload.whole in [10, 20, 30]",
            "type(payload.name) == string",
            "topic.startsWith('plant/') && topic.contains('/7/')",
            "payload.on ? payload.rms > 1.0 : payload.rms > 2.0",
            "-payload.rms < -7.0 && double('7') < payload.rms",
            "payload.missing > 1.0 || payload.on",
            "true",
        ] {
            assert!(holds(text, payload).unwrap(), "{text}");
        }
        assert!(!holds("payload.rms > 8.0", payload).unwrap());
        assert!(!holds("has(payload.off)", payload).unwrap());
        assert!(!holds("payload.name == 7", payload).unwrap());
        assert!(holds("payload > 20.0", "23.5").unwrap());
    }

    #[test]
    fn what_a_condition_cannot_read() {
        for (text, payload, said) in [
            ("payload.rms > 7.1", "{}", "no `rms`"),
            ("has(payload.a.b)", "{}", "no `a`"),
            ("payload.rms > 7.1", r#"{"rms":"high"}"#, "overload"),
            (
                "payload.rms + 1 > 7.1",
                r#"{"rms":7}"#,
                "numbers in JSON are doubles",
            ),
            ("payload.rms", r#"{"rms":7}"#, "double"),
            ("payload.list[3] == 1", r#"{"list":[]}"#, "3"),
            ("payload.rms > 7.1", "7", ""),
            ("payload.rms > 7.1", "hello", "not JSON"),
            ("payload.rms > 7.1", "", "not JSON"),
            ("payload.rms > 7.1", r#"{"rms":1e999}"#, "not JSON"),
            ("int(payload.x) / 0 == 1", r#"{"x":1}"#, "zero"),
            ("-int(payload.x) > 0", r#"{"x":-9223372036854775808}"#, ""),
        ] {
            let why = holds(text, payload).unwrap_err().to_string();
            assert!(why.contains(said), "{text} {payload}: {why}");
        }
    }

    #[test]
    fn does_a_condition_on_the_topic_alone_need_no_payload() {
        let language = Language::default();
        let compile = |text| Condition::compile(text, &language).unwrap();
        assert!(!compile("topic.endsWith('/alarm')").reads_payload());
        assert!(compile("topic == 'a' && has(payload.x)").reads_payload());
        let condition = compile("topic.endsWith('/alarm')");
        assert!(evaluate(&condition, &language, b"not json").is_ok());
    }

    #[test]
    fn what_is_refused_and_why() {
        for (text, said) in [
            ("payload.rms >", "syntax error at column 14"),
            ("payload.rms > 7 )", "column 17"),
            ("payload.rms >\n > 7", "line 2, column 2"),
            ("", "syntax error"),
            ("payload.a = 5", "column 11"),
            ("payload.l.all(x, x > 1)", "`all` walks a whole collection"),
            ("payload.l.exists(x, x > 1)", "`exists` walks"),
            ("payload.l.exists_one(x, x > 1)", "`exists_one` walks"),
            ("payload.l.existsOne(x, x > 1)", "`existsOne` walks"),
            ("payload.l.map(x, x) == []", "`map` walks"),
            ("payload.l.filter(x, x > 1) == []", "`filter` walks"),
            ("payload.name.matches('.*')", "regular expression"),
            ("rms > 7.1", "write `payload.rms`"),
            (".payload.rms > 7.1", "`.payload`"),
            ("payload.rms > limit", "`limit`"),
            ("now() > 1", "`now`"),
            ("payload.name.lower() == 'a'", "`lower`"),
            ("startsWith(topic, 'a')", "called on a value"),
            ("size(topic, 1) == 1", "`size`"),
            ("has(payload)", "takes a field"),
            ("has(payload.a, 1)", "takes one field"),
            ("payload.?a == 1", "column"),
            ("Thing{a: 1} == 1", "JSON only"),
            ("7", "never true or false"),
            ("'high'", "never true or false"),
            ("[payload.a]", "never true or false"),
        ] {
            let why = refused(text);
            assert!(why.contains(said), "{text}: {why}");
        }
    }

    #[test]
    fn how_long_and_how_deep_a_condition_may_be() {
        let texts = vec!["payload.rms > 7.1"; 16].join(" && ");
        assert!(Condition::compile(&texts, &Language::default()).is_ok());
        let nested = format!("{}true{}", "(".repeat(NESTING_MAX), ")".repeat(NESTING_MAX));
        assert!(Condition::compile(&nested, &Language::default()).is_ok());
        assert!(refused(&format!("({nested})")).contains("17 brackets"));
        assert!(refused(&"a".repeat(CONDITION_BYTES_MAX + 1)).contains("4097 bytes"));
        assert!(refused(&"a in ".repeat(200)).contains("words and signs"));
        assert!(refused(&"!".repeat(400)).contains("words and signs"));
        let sum = vec!["payload.a"; ADDITIONS_MAX + 2].join(" + ");
        assert!(refused(&format!("{sum} > 1.0")).contains("adds more than"));
    }

    /// The parser recurses for brackets and for chains of operators (cel-rust 212): the longest that
    /// pass must fit a thread of default size, unoptimised, parsed, evaluated and dropped.
    #[test]
    fn does_the_deepest_condition_fit_the_stack() {
        let chains = [
            vec!["1.0"; TOKENS_MAX / 4].join("-") + " < 1.0",
            vec!["1"; TOKENS_MAX / 2 - 2].join("*") + " == 1",
            vec!["true"; TOKENS_MAX / 2].join("=="),
            vec!["true"; TOKENS_MAX / 3].join("&&"),
            vec!["true"; TOKENS_MAX / 2].join(" in "),
            format!("payload{}", ".a".repeat(TOKENS_MAX / 2 - 1)),
            format!("payload{}", "[0]".repeat(TOKENS_MAX / 3 - 1)),
            format!("{}true", "true ? true : ".repeat(TOKENS_MAX / 4 - 1)),
            format!("{}true", "!".repeat(TOKENS_MAX - 1)),
            format!("topic{}", ".size()".repeat(TOKENS_MAX / 4 - 1)),
            format!("{}1{}", "[".repeat(NESTING_MAX), "]".repeat(NESTING_MAX)) + " == 1",
        ];
        for text in chains {
            std::thread::Builder::new()
                .spawn(move || {
                    let language = Language::default();
                    match Condition::compile(&text, &language) {
                        Ok(condition) => {
                            let _ = evaluate(&condition, &language, b"{}");
                        }
                        Err(why) => assert!(why.contains("not CEL"), "{text}: {why}"),
                    }
                })
                .unwrap()
                .join()
                .unwrap();
        }
    }

    fn bracket_dense() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            Just("("),
            Just(")"),
            Just("["),
            Just("]"),
            Just("{"),
            Just("}"),
            Just("?"),
            Just(":"),
            Just("."),
            Just(","),
            Just("!"),
            Just("-"),
            Just("+"),
            Just("&&"),
            Just("||"),
            Just("=="),
            Just(" in "),
            Just("'"),
            Just("\""),
            Just("\\"),
            Just("`"),
            Just("payload"),
            Just("topic"),
            Just("has("),
            Just("size("),
            Just("1"),
            Just("1.5"),
            Just("a"),
            Just("null"),
            Just("9223372036854775807"),
            Just("//"),
            Just("\n"),
            Just("ä"),
            Just("b'"),
            Just("r'"),
            Just("\\u12"),
            Just("1e"),
            Just("0x"),
            Just("@"),
        ];
        proptest::collection::vec(part, 0..60).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_500))]

        #[test]
        fn does_no_text_upset_the_compiler(text in bracket_dense()) {
            let language = Language::default();
            if let Ok(condition) = Condition::compile(&text, &language) {
                let _ = evaluate(&condition, &language, br#"{"a": [1, {"a": "b"}]}"#);
            }
        }
    }

    fn json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            any::<u64>().prop_map(Json::from),
            any::<f64>().prop_map(Json::from),
            ".{0,8}".prop_map(Json::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
                proptest::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|fields| Json::Object(fields.into_iter().collect())),
            ]
        })
    }

    /// One of everything that a condition can do, over fields that random payloads have.
    const EVERYTHING: [&str; 12] = [
        "payload.a > payload.b",
        "payload.a + payload.b == payload.c",
        "payload.a - payload.b * payload.c / payload.d % payload.a < 0",
        "-payload.a < 1",
        "int(payload.a) + int(payload.b) > -int(payload.c) * int(payload.d)",
        "int(payload.a) / int(payload.b) % int(payload.c) - int(payload.d) == 0",
        "uint(payload.a) - uint(payload.b) == uint(payload.c) * uint(payload.d)",
        "payload.a in payload || payload.b in payload.c",
        "payload[payload.a] == payload.b[payload.c] || payload[0] == payload[-1]",
        "string(payload.a).contains(string(payload.b)) || bool(payload.c)",
        "size(payload.a) == size(payload.b) && bytes(payload.c) == b'x'",
        "{payload.a: payload.b} == payload.c || [payload] == payload.d",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn does_no_payload_upset_a_condition(
            json in json(), bytes in proptest::collection::vec(any::<u8>(), 0..64)
        ) {
            let language = Language::default();
            for text in EVERYTHING {
                let condition = Condition::compile(text, &language).unwrap();
                let _ = evaluate(&condition, &language, json.to_string().as_bytes());
                let _ = evaluate(&condition, &language, &bytes);
            }
        }
    }
}
