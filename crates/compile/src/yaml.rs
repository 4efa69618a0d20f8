//! YAML parser that keeps the position (file, line and column) of each key and value.
//!
//! The parser follows Go's YAML libraries, with which `docker compose` and `kubectl` are written: anchors, aliases and
//! merge keys are resolved, and a duplicate key is an error. Scalars keep their text. The caller chooses how to resolve
//! plain scalars: [`scalar`] implements the rules of YAML 1.2 (compose), [`json`] those of YAML 1.1 (Kubernetes).

pub mod json;
pub mod scalar;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use granit_parser::{
    ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput, Tag as ParsedTag,
};
use indexmap::IndexMap;
use indexmap::map::Entry as Slot;

use crate::{
    diagnostic::{Diagnostic, Diagnostics, Position},
    source::Source,
};

/// Limit of nested collections, which bounds the recursion of functions that walk the tree. Descriptions nest about ten
/// levels, the schemas of custom resources about sixty.
const MAX_DEPTH: usize = 200;

/// Limit of copies by aliases, in nodes of at most 64 bytes of text. A file that repeats a block for each of a hundred
/// services copies a few thousand nodes; a "billion laughs" file is stopped after a few megabytes.
const MAX_COPIED: usize = 200_000;

/// Limit of bytes that are parsed again because of quoted lines with too little indentation. Each such line costs one more
/// pass over the text; no file has more than a few.
const MAX_REREAD: usize = 4 << 20;

/// Limit of the indentation added to such lines, which bounds the text: [`MAX_DEPTH`] levels of five columns.
const MAX_INDENT: usize = 1000;

/// A value and its position.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Position of its first character; in a copy by alias, that of the anchored node.
    pub at: Position,
    /// The value.
    pub value: Value,
    /// Its tag, such as `!reset` or `!!str`.
    pub tag: Option<Tag>,
}

/// The content of a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A string, number, boolean or null.
    Scalar(Scalar),
    /// `- a`
    Sequence(Vec<Node>),
    /// `a: b`, in the order written.
    Mapping(Mapping),
}

/// A scalar as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scalar {
    /// Its text, without quotes.
    pub text: String,
    /// Whether it is a plain scalar, which may be resolved to a number, a boolean or null.
    pub plain: bool,
}

/// Keys and their values, in the order written.
pub type Mapping = IndexMap<String, Entry>;

/// A value and the position of its key.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Position of the key.
    pub at: Position,
    /// Whether the key is a plain scalar.
    pub plain: bool,
    /// The value.
    pub value: Node,
}

/// The tag of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tag {
    /// `!!str`: a string.
    Text,
    /// `!!int`, `!!float`, `!!bool`, `!!null`: resolved like a plain scalar.
    Core,
    /// `!!binary`: base64.
    Binary,
    /// Compose: remove the value of other files.
    Reset,
    /// Compose: replace the value of other files.
    Override,
    /// Any other tag, which is ignored.
    Other(Arc<str>),
}

impl Node {
    /// A generated string at the position of its origin.
    pub fn text(at: &Position, text: impl Into<String>) -> Node {
        let scalar = Scalar { text: text.into(), plain: false };
        Node { at: at.clone(), value: Value::Scalar(scalar), tag: None }
    }

    /// A null value.
    pub fn null(at: &Position) -> Node {
        let scalar = Scalar { text: String::new(), plain: true };
        Node { at: at.clone(), value: Value::Scalar(scalar), tag: None }
    }

    /// A generated mapping.
    pub fn mapping(at: &Position, mapping: Mapping) -> Node {
        Node { at: at.clone(), value: Value::Mapping(mapping), tag: None }
    }

    /// A generated list.
    pub fn sequence(at: &Position, items: Vec<Node>) -> Node {
        Node { at: at.clone(), value: Value::Sequence(items), tag: None }
    }

    /// The mapping, if it is one.
    pub fn as_mapping(&self) -> Option<&Mapping> {
        if let Value::Mapping(m) = &self.value { Some(m) } else { None }
    }

    /// The mapping, if it is one.
    pub fn as_mapping_mut(&mut self) -> Option<&mut Mapping> {
        if let Value::Mapping(m) = &mut self.value { Some(m) } else { None }
    }

    /// The list, if it is one.
    pub fn as_sequence(&self) -> Option<&[Node]> {
        if let Value::Sequence(s) = &self.value { Some(s) } else { None }
    }

    /// The value under `key`, if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.as_mapping()?.get(key).map(|e| &e.value)
    }

    /// The node at a path of keys and of indexes such as `0`; `None` where the path ends before.
    pub fn find<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Option<&Node> {
        path.into_iter().try_fold(self, |node, step| match &node.value {
            Value::Mapping(m) => m.get(step).map(|e| &e.value),
            Value::Sequence(s) => s.get(step.parse::<usize>().ok()?),
            Value::Scalar(_) => None,
        })
    }

    /// Position of the node at a path (of its key, if it has one), or of its nearest existing ancestor.
    pub fn place<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> &Position {
        let (mut node, mut at) = (self, &self.at);
        for step in path {
            let next = match &node.value {
                Value::Mapping(m) => m.get(step).map(|e| (&e.value, &e.at)),
                Value::Sequence(s) => step.parse::<usize>().ok().and_then(|i| s.get(i)).map(|n| (n, &n.at)),
                Value::Scalar(_) => None,
            };
            let Some(found) = next else { break };
            (node, at) = found;
        }
        at
    }
}

/// Parses all documents of a text. An empty document is a null node; an empty text has no documents.
///
/// # Errors
///
/// Invalid YAML (only the first error, since the text after it cannot be trusted), duplicate keys, and aliases that exceed
/// the limit of copies.
pub fn read(source: &Source) -> Result<Vec<Node>, Diagnostics> {
    read_with(source, &mut None)
}

/// Like [`read`], but accepts a duplicate key with an equal value and adds a warning to `repeated`.
pub fn read_repeating(source: &Source, repeated: &mut Vec<Diagnostic>) -> Result<Vec<Node>, Diagnostics> {
    let mut told = Some(Vec::new());
    let documents = read_with(source, &mut told);
    repeated.extend(told.into_iter().flatten());
    documents
}

/// Parses all documents. Duplicate keys with equal values are errors unless `repeated` is a list.
fn read_with(source: &Source, repeated: &mut Option<Vec<Diagnostic>>) -> Result<Vec<Node>, Diagnostics> {
    // A byte order mark is not part of the content.
    let mut text = Cow::Borrowed(source.text.strip_prefix('\u{feff}').unwrap_or(&source.text));
    let mut indented = Indented::default();
    let mut builder = loop {
        let mut builder = Builder::new(source, &indented);
        builder.repeated = repeated.is_some().then(Vec::new);
        match builder.run(&mut Parser::new_from_str(&text)) {
            Ok(()) => break builder,
            Err(Stop::Mistake(mistake)) => {
                builder.mistakes.push(mistake);
                break builder;
            }
            Err(Stop::Quoted(error)) => {
                let at = builder.place(*error.marker());
                match indented.deeper(error.marker().line(), &text) {
                    Some(deeper) => text = Cow::Owned(deeper),
                    // The usual cause is that the end of the text was reached.
                    None => {
                        let sentence = "is not YAML: a quote that is opened above is never closed";
                        let line = indented.lines.keys().min().copied().unwrap_or(at.line);
                        return Err(Diagnostic::new(&source.at_line(line, 1), sentence).into());
                    }
                }
            }
        }
    };
    if builder.mistakes.is_empty() {
        *repeated = builder.repeated;
        return Ok(builder.documents);
    }
    builder.mistakes.sort_by(|a, b| a.at.cmp(&b.at));
    Err(Diagnostics(builder.mistakes))
}

/// Lines to which indentation was added.
///
/// Go's libraries accept continuation lines of a quoted scalar in any column, while this parser requires more indentation
/// than that of the parent. Leading spaces of such a line have no meaning, so they are added before parsing and
/// subtracted from positions.
#[derive(Default)]
struct Indented {
    /// Number of added spaces by line, from 1.
    lines: HashMap<usize, usize>,
    /// Bytes parsed again so far.
    read: usize,
}

impl Indented {
    /// Returns `text` with more indentation on line `number` and the lines after it up to one with a quote, which belong
    /// to the same scalar. `None` if that has been done, exceeds a limit, or a document starts there.
    fn deeper(&mut self, number: usize, text: &str) -> Option<String> {
        self.read += text.len();
        if self.read > MAX_REREAD || self.lines.contains_key(&number) {
            return None;
        }
        let depth = |line: &str| line.len() - line.trim_start_matches([' ', '-', '?']).len();
        // Lines with added indentation do not count as a measure of the indentation.
        let written = text.lines().enumerate().filter(|(i, _)| !self.lines.contains_key(&(i + 1)));
        let spaces = written.map(|(_, line)| depth(line)).max().unwrap_or_default() + 1;
        // No line is indented twice, so this also bounds the added spaces.
        if spaces > MAX_INDENT || text.lines().count() * spaces > MAX_REREAD {
            return None;
        }
        let mut out = String::with_capacity(text.len() + 64 * spaces);
        let mut inside = false;
        for (number_here, line) in (1..).zip(text.split_inclusive('\n')) {
            inside |= number_here == number;
            let ends = line.strip_prefix("---").or(line.strip_prefix("..."));
            inside &= !ends.is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
            if inside {
                out.extend(std::iter::repeat_n(' ', spaces));
                self.lines.insert(number_here, spaces);
                inside = !line.contains(['\'', '"']);
            }
            out.push_str(line);
        }
        self.lines.contains_key(&number).then_some(out)
    }
}

/// The reason why parsing stopped.
enum Stop {
    Mistake(Diagnostic),
    /// A line of a quoted scalar with too little indentation.
    Quoted(ScanError),
}

impl From<Diagnostic> for Stop {
    fn from(mistake: Diagnostic) -> Self {
        Stop::Mistake(mistake)
    }
}

/// A collection that is not closed yet.
struct Open {
    node: Node,
    anchor: usize,
    weight: usize,
    /// In a mapping, the key whose value comes next.
    key: Option<Key>,
    /// Mappings merged by `<<`, in order. They are applied when the mapping is closed, since its own keys take precedence.
    merges: Vec<Mapping>,
}

struct Key {
    at: Position,
    text: String,
    plain: bool,
}

struct Builder<'s> {
    source: &'s Source,
    indented: &'s Indented,
    open: Vec<Open>,
    documents: Vec<Node>,
    /// Anchored nodes with their weights.
    anchors: HashMap<usize, (Node, usize)>,
    copied: usize,
    mistakes: Vec<Diagnostic>,
    /// Warnings about duplicate keys with equal values, where these are accepted.
    repeated: Option<Vec<Diagnostic>>,
}

impl<'s> Builder<'s> {
    fn new(source: &'s Source, indented: &'s Indented) -> Self {
        let (open, documents, mistakes) = (Vec::new(), Vec::new(), Vec::new());
        Builder {
            source,
            indented,
            open,
            documents,
            anchors: HashMap::new(),
            copied: 0,
            mistakes,
            repeated: None,
        }
    }

    fn run<'t>(&mut self, parser: &mut Parser<'t, StrInput<'t>>) -> Result<(), Stop> {
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|e| match e.kind() {
                ErrorKind::InvalidQuotedScalarIndent | ErrorKind::TabInIndentation => Stop::Quoted(e),
                _ => Stop::Mistake(self.broken(&e)),
            })?;
            let at = self.at(&span);
            match event {
                Event::Scalar(text, style, anchor, tag) => {
                    let weight = 1 + text.len() / 64;
                    let plain = style == ScalarStyle::Plain;
                    // The parser shows an absent value as `~`.
                    let absent = plain && span.start.index() == span.end.index();
                    let text = if absent { String::new() } else { text.into_owned() };
                    let value = Value::Scalar(Scalar { text, plain });
                    self.add(Node { at, value, tag: tag.as_deref().map(tag_of) }, anchor, weight)?;
                }
                Event::SequenceStart(_, anchor, tag) => {
                    self.begin(at, Value::Sequence(Vec::new()), tag.as_deref(), anchor)?;
                }
                Event::MappingStart(_, anchor, tag) => {
                    self.begin(at, Value::Mapping(Mapping::new()), tag.as_deref(), anchor)?;
                }
                Event::SequenceEnd | Event::MappingEnd => self.end()?,
                Event::Alias(id) => {
                    let Some((node, weight)) = self.anchors.get(&id).cloned() else {
                        let sentence = "is an alias within its own anchor, which never ends";
                        return Err(Diagnostic::new(&at, sentence).into());
                    };
                    self.spend(&at, weight)?;
                    self.add(node, 0, weight)?;
                }
                Event::DocumentStart(..) => self.anchors.clear(),
                // Starts, ends, and events of options that are off.
                _ => {}
            }
        }
        Ok(())
    }

    fn at(&self, span: &Span) -> Position {
        self.place(span.start)
    }

    fn place(&self, marker: Marker) -> Position {
        let spaces = self.indented.lines.get(&marker.line()).copied().unwrap_or_default();
        self.source.at_line(marker.line(), marker.col().saturating_sub(spaces) + 1)
    }

    fn broken(&self, error: &ScanError) -> Diagnostic {
        let at = self.place(*error.marker());
        if error.info().contains("recursion limit") {
            return too_deep(&at);
        }
        if error.info().contains("<document start>") {
            let sentence = "is not YAML: the list or mapping above has ended before this line, as its indentation is less than the first line's";
            return Diagnostic::new(&at, sentence);
        }
        Diagnostic::new(&at, format!("is not YAML: {}", error.info()))
    }

    /// Counts copied nodes, by which a small file could become a large tree.
    fn spend(&mut self, at: &Position, weight: usize) -> Result<(), Diagnostic> {
        self.copied += weight;
        if self.copied > MAX_COPIED {
            return Err(Diagnostic::new(
                at,
                "repeats more by its anchors and aliases than a description could need",
            ));
        }
        Ok(())
    }

    fn begin(
        &mut self,
        at: Position,
        value: Value,
        tag: Option<&ParsedTag>,
        anchor: usize,
    ) -> Result<(), Diagnostic> {
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(&at));
        }
        let node = Node { at, value, tag: tag.map(tag_of) };
        self.open.push(Open { node, anchor, weight: 1, key: None, merges: Vec::new() });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Diagnostic> {
        let Some(mut open) = self.open.pop() else { return Ok(()) };
        if let Value::Mapping(mapping) = &mut open.node.value {
            if let Some((_, first)) = mapping.first() {
                // The parser may report a block mapping at the position of its first value.
                open.node.at = open.node.at.min(first.at.clone());
            }
            for merged in open.merges {
                for (key, entry) in merged {
                    mapping.entry(key).or_insert(entry);
                }
            }
        }
        self.add(open.node, open.anchor, open.weight)
    }

    /// Adds a finished node to its parent.
    fn add(&mut self, node: Node, anchor: usize, weight: usize) -> Result<(), Diagnostic> {
        if anchor != 0 {
            self.spend(&node.at.clone(), weight)?;
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        let Some(open) = self.open.last_mut() else {
            self.documents.push(node);
            return Ok(());
        };
        open.weight += weight;
        let mapping = match &mut open.node.value {
            Value::Sequence(items) => {
                items.push(node);
                return Ok(());
            }
            Value::Mapping(mapping) => mapping,
            Value::Scalar(_) => return Ok(()),
        };
        let Some(key) = open.key.take() else {
            let Value::Scalar(scalar) = node.value else {
                return Err(Diagnostic::new(&node.at, "a list or mapping cannot be a key here: write text"));
            };
            open.key = Some(Key { at: node.at, text: scalar.text, plain: scalar.plain });
            return Ok(());
        };
        if key.plain && key.text == "<<" {
            let at = node.at.clone();
            if !merges_of(node, &mut open.merges) {
                let sentence = "<< takes a mapping or a list of mappings, such as <<: *name";
                self.mistakes.push(Diagnostic::new(&at, sentence));
            }
            return Ok(());
        }
        match mapping.entry(key.text) {
            Slot::Occupied(first) if self.repeated.is_some() && same_value(&first.get().value, &node) => {
                let line = first.get().at.line;
                let sentence = format!(
                    "{:?} is a duplicate key with the same value as in line {line}: remove one",
                    first.key()
                );
                self.repeated.get_or_insert_default().push(Diagnostic::new(&key.at, sentence));
            }
            Slot::Occupied(first) => {
                let sentence = format!(
                    "{:?} is a duplicate key: it is already in line {}",
                    first.key(),
                    first.get().at.line
                );
                self.mistakes.push(Diagnostic::new(&key.at, sentence));
            }
            Slot::Vacant(slot) => {
                slot.insert(Entry { at: key.at, plain: key.plain, value: node });
            }
        }
        Ok(())
    }
}

/// Whether two nodes have equal content; positions are ignored.
fn same_value(a: &Node, b: &Node) -> bool {
    a.tag == b.tag
        && match (&a.value, &b.value) {
            (Value::Scalar(a), Value::Scalar(b)) => a == b,
            (Value::Sequence(a), Value::Sequence(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_value(a, b))
            }
            (Value::Mapping(a), Value::Mapping(b)) => {
                a.len() == b.len()
                    && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same_value(&a.value, &b.value)))
            }
            _ => false,
        }
}

fn too_deep(at: &Position) -> Diagnostic {
    Diagnostic::new(at, format!("is nested more than {MAX_DEPTH} levels deep"))
}

/// Collects the mappings of `<<`; earlier ones take precedence.
fn merges_of(node: Node, merges: &mut Vec<Mapping>) -> bool {
    match node.value {
        Value::Mapping(mapping) => merges.push(mapping),
        Value::Sequence(items) => {
            for item in items {
                let Value::Mapping(mapping) = item.value else { return false };
                merges.push(mapping);
            }
        }
        Value::Scalar(_) => return false,
    }
    true
}

fn tag_of(tag: &ParsedTag) -> Tag {
    match (tag.handle(), tag.suffix()) {
        ("tag:yaml.org,2002:" | "!!", "str") => Tag::Text,
        ("tag:yaml.org,2002:" | "!!", "int" | "float" | "bool" | "null" | "map" | "seq") => Tag::Core,
        ("tag:yaml.org,2002:" | "!!", "binary") => Tag::Binary,
        ("!", "reset") => Tag::Reset,
        ("!", "override") => Tag::Override,
        ("" | "!", "") => Tag::Text,
        _ => Tag::Other(tag.to_string().into()),
    }
}
