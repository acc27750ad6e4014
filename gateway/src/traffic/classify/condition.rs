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

use cel::common::ast::{Expr, IdedExpr};
use cel::common::types::{CelBool, CelDouble, CelList, CelMap, CelMapKey, CelNull, CelString};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::parser::Macro;
use cel::{Context, Env, ParseErrors, Value};
use serde_json::Value as Json;

use super::reading::{Payload, Unreadable};
use super::{bounds, vocabulary};

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
        bounds::check_size(text)?;
        let expression = language
            .env
            .parser()
            .error_recovery_limit(1)
            .parse(text)
            .map_err(|errors| syntax(text, &errors))?;
        Ok(Self {
            text: text.into(),
            reads_payload: vocabulary::check(&expression)?,
            expression,
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
        _ => "the condition is not CEL: it breaks off or nests too many choices".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::sync::LazyLock;

    use super::super::bounds::{
        ADDITIONS_MAX, BRACKET_DEPTH, CONDITION_BYTES_MAX, DEPTH_MAX, TOKENS_MAX,
    };
    use super::*;

    static LANGUAGE: LazyLock<Language> = LazyLock::new(Language::default);

    fn compile(text: &str) -> Result<Condition, String> {
        Condition::compile(text, &LANGUAGE)
    }

    fn holds(text: &str, payload: &str) -> Result<bool, Unreadable> {
        evaluate(&compile(text).unwrap(), payload.as_bytes())
    }

    fn evaluate(condition: &Condition, payload: &[u8]) -> Result<bool, Unreadable> {
        let payload = Payload::new(payload);
        condition.holds(&LANGUAGE, &Scope::new("plant/7/vibration", &payload))
    }

    fn refused(text: &str) -> String {
        compile(text).unwrap_err()
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
        let compile = |text| compile(text).unwrap();
        assert!(!compile("topic.endsWith('/alarm')").reads_payload());
        assert!(compile("topic == 'a' && has(payload.x)").reads_payload());
        let condition = compile("topic.endsWith('/alarm')");
        assert!(evaluate(&condition, b"not json").is_ok());
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
        assert!(compile(&texts).is_ok());
        let deepest = DEPTH_MAX / (BRACKET_DEPTH + 1);
        let nested = format!("{}true{}", "(".repeat(deepest), ")".repeat(deepest));
        assert!(compile(&nested).is_ok());
        assert!(refused(&format!("({nested})")).contains("nested too deeply (45"));
        assert!(refused(&format!("{nested} == {}", "x.".repeat(80))).contains("nested too deeply"));
        let quoted = format!("topic == '{}a'", "a/".repeat(100));
        assert!(compile(&quoted).is_ok());
        assert!(refused(&"a".repeat(CONDITION_BYTES_MAX + 1)).contains("4097 bytes"));
        assert!(refused(&"a in ".repeat(200)).contains("words and signs"));
        assert!(refused(&"!".repeat(400)).contains("words and signs"));
        let sum = vec!["payload.a"; ADDITIONS_MAX + 2].join(" + ");
        assert!(refused(&format!("{sum} > 1.0")).contains("adds more than"));
    }

    /// The parser recurses for brackets and for chains of operators (cel-rust 212): the longest that
    /// pass must fit a thread of default size, unoptimised, parsed, evaluated and dropped.
    #[test]
    #[allow(
        clippy::disallowed_methods,
        reason = "the test is about a thread's stack"
    )]
    fn does_the_deepest_condition_fit_the_stack() {
        let brackets = DEPTH_MAX / (BRACKET_DEPTH + 1);
        let around = |open: &str, inner: &str, close: &str| {
            format!("{}{inner}{}", open.repeat(brackets), close.repeat(brackets))
        };
        let chains = [
            vec!["1"; DEPTH_MAX - 1].join("-") + " < 1",
            vec!["1"; DEPTH_MAX - 1].join("*") + " == 1",
            vec!["true"; DEPTH_MAX / 2].join("=="),
            vec!["true"; TOKENS_MAX / 3].join("&&"),
            vec!["true"; DEPTH_MAX].join(" in "),
            format!("payload{}", ".a".repeat(DEPTH_MAX)),
            format!("payload{}", "[0]".repeat(DEPTH_MAX - BRACKET_DEPTH)),
            format!("{}true", "true ? true : ".repeat(DEPTH_MAX)),
            format!("{}true", "!".repeat(DEPTH_MAX)),
            format!("topic{}", ".size()".repeat((DEPTH_MAX - BRACKET_DEPTH) / 2)),
            around("(", "true", ")"),
            around("[", "true", "]"),
            around("size(", "topic", ")"),
            around("{1:", "true", "}"),
            format!("(((({}))))", vec!["1"; DEPTH_MAX - 20].join("*")),
            format!("((((1)))){}", "*1".repeat(DEPTH_MAX - 20)),
        ];
        for text in chains {
            std::thread::Builder::new()
                .spawn(move || match compile(&text) {
                    Ok(condition) => {
                        let _ = evaluate(&condition, b"{}");
                    }
                    Err(why) => assert!(!why.contains("nested too deeply"), "{text}: {why}"),
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
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn does_no_text_upset_the_compiler(text in bracket_dense()) {
            if let Ok(condition) = compile(&text) {
                let _ = evaluate(&condition, br#"{"a": [1, {"a": "b"}]}"#);
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
            static COMPILED: LazyLock<Vec<Condition>> =
                LazyLock::new(|| EVERYTHING.map(|text| compile(text).unwrap()).into());
            for condition in &*COMPILED {
                let _ = evaluate(condition, json.to_string().as_bytes());
                let _ = evaluate(condition, &bytes);
            }
        }
    }
}
