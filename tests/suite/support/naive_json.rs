//! A small, separate JSON reader, so that the naive batch shares no code with the product. It is slow, recursive and
//! keeps everything; numbers remain as written.

/// A JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as written.
    Number(String),
    /// A string, lone surrogates replaced.
    Text(String),
    /// A list.
    List(Vec<Json>),
    /// The members in the order written, duplicates included.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Returns the value of `key`: the last one, `Null` if it is missing or this is not an object.
    pub fn get(&self, key: &str) -> &Json {
        let Json::Object(members) = self else {
            return &Json::Null;
        };
        let found = members.iter().rev().find(|(name, _)| name == key);
        found.map_or(&Json::Null, |(_, value)| value)
    }
}

/// Returns the value of `text`, if it is one complete JSON value with nothing but white space around it.
pub fn parse(text: &str) -> Option<Json> {
    let mut reader = Reader { rest: text };
    let value = reader.value()?;
    reader.skip_space();
    reader.rest.is_empty().then_some(value)
}

struct Reader<'t> {
    rest: &'t str,
}

impl Reader<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
    }

    fn take(&mut self, token: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(token)?;
        Some(())
    }

    fn value(&mut self) -> Option<Json> {
        self.skip_space();
        match self.rest.chars().next()? {
            '{' => self.object(),
            '[' => self.list(),
            '"' => self.string().map(Json::Text),
            'n' => self.take("null").map(|()| Json::Null),
            't' => self.take("true").map(|()| Json::Bool(true)),
            'f' => self.take("false").map(|()| Json::Bool(false)),
            _ => self.number(),
        }
    }

    fn object(&mut self) -> Option<Json> {
        let mut members = Vec::new();
        self.take("{")?;
        self.skip_space();
        if self.take("}").is_some() {
            return Some(Json::Object(members));
        }
        loop {
            self.skip_space();
            let key = self.string()?;
            self.skip_space();
            self.take(":")?;
            members.push((key, self.value()?));
            self.skip_space();
            if self.take(",").is_none() {
                return self.take("}").map(|()| Json::Object(members));
            }
        }
    }

    fn list(&mut self) -> Option<Json> {
        let mut values = Vec::new();
        self.take("[")?;
        self.skip_space();
        if self.take("]").is_some() {
            return Some(Json::List(values));
        }
        loop {
            values.push(self.value()?);
            self.skip_space();
            if self.take(",").is_none() {
                return self.take("]").map(|()| Json::List(values));
            }
        }
    }

    /// Parses `-`? int frac? exp?, where int has no leading zero.
    fn number(&mut self) -> Option<Json> {
        let end = self
            .rest
            .find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E'));
        let (number, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        let unsigned = number.strip_prefix('-').unwrap_or(number);
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (
                mantissa,
                exponent.strip_prefix(['+', '-']).unwrap_or(exponent),
            ),
            None => (unsigned, "0"),
        };
        let (int, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
        let digits =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let leading_zero = int.len() > 1 && int.starts_with('0');
        if leading_zero || ![int, fraction, exponent].into_iter().all(digits) {
            return None;
        }
        self.rest = rest;
        Some(Json::Number(number.to_owned()))
    }

    fn string(&mut self) -> Option<String> {
        // UTF-16 units first: surrogates are paired or replaced at the end.
        let mut units = Vec::new();
        self.take("\"")?;
        loop {
            let c = self.rest.chars().next()?;
            self.rest = &self.rest[c.len_utf8()..];
            match c {
                '"' => break,
                '\\' => units.push(self.escape()?),
                '\0'..='\u{1f}' => return None,
                _ => units.extend(c.encode_utf16(&mut [0; 2]).iter()),
            }
        }
        Some(String::from_utf16_lossy(&units))
    }

    fn escape(&mut self) -> Option<u16> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        let plain = match c {
            '"' | '\\' | '/' => c,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let digits = self.rest.get(..4)?;
                self.rest = &self.rest[4..];
                let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                return hex.then(|| u16::from_str_radix(digits, 16).ok()).flatten();
            }
            _ => return None,
        };
        Some(plain as u16)
    }
}

#[test]
fn valid_values_are_read_and_anything_else_is_refused() {
    let text = |text: &str| Some(Json::Text(text.to_owned()));
    assert_eq!(
        parse(r#" "a\n\u00e9\ud83d\ude00\ud83d" "#),
        text("a\né😀\u{fffd}")
    );
    assert_eq!(parse("-0.5e+3"), Some(Json::Number("-0.5e+3".to_owned())));
    assert_eq!(parse("[ ]"), Some(Json::List(Vec::new())));
    let object = parse(r#"{"a":1,"b":[true,null],"a":{}}"#).unwrap();
    assert_eq!(object.get("a"), &Json::Object(Vec::new()));
    assert_eq!(
        object.get("b"),
        &Json::List(vec![Json::Bool(true), Json::Null])
    );
    assert_eq!(object.get("c"), &Json::Null);
    let wrong = [
        "", "tru", "01", "1.", ".5", "-", "+1", "1e", "[1,]", "{\"a\"}", "{} x", "{}{}",
    ];
    for line in wrong
        .into_iter()
        .chain(["\"a", "\"\t\"", r#""\x""#, r#""\u12""#, "{,}", "nullx"])
    {
        assert_eq!(parse(line), None, "{line}");
    }
}
