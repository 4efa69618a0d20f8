//! YAML with a place for everything: each key and each value knows its file, line and column.
//!
//! The text is read as Go's YAML libraries read it, since `docker compose` and `kubectl` are written with them: anchors,
//! aliases and merge keys are resolved, a key written twice is a mistake. Scalars keep their text; what a plain scalar
//! means is decided by who asks: [`scalar`] knows the rules of YAML 1.2 (compose), [`json`] those of YAML 1.1
//! (Kubernetes).

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

/// Collections in one another. Descriptions have some ten, the schemas of custom resources some sixty; what is built
/// here is walked by recursion, which this keeps off the end of the stack.
const MAX_DEPTH: usize = 200;

/// How much anchors may be copied, in nodes of at most 64 bytes of text. A file that repeats a block for each of a
/// hundred services copies some thousands; a "billion laughs" stops here after some megabytes.
const MAX_COPIED: usize = 200_000;

/// How much may be read anew for lines between quotes that begin too far left. Some such lines cost the whole text once;
/// no file has more than a few.
const MAX_REREAD: usize = 4 << 20;

/// As deep as lines may be indented for that, which keeps the text small: [`MAX_DEPTH`] levels of five columns.
const MAX_INDENT: usize = 1000;

/// A value and where it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it begins; in a copy by alias, where the original is.
    pub at: Position,
    /// The value.
    pub value: Value,
    /// What is written before it: `!reset`, `!!str`.
    pub tag: Option<Tag>,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text, number, boolean or nothing.
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
    /// Written without quotes and in no block, so that it may mean a number, a boolean or null.
    pub plain: bool,
}

/// Keys and their values, in the order written.
pub type Mapping = IndexMap<String, Entry>;

/// A key's place and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Where the key is.
    pub at: Position,
    /// The key has no quotes.
    pub plain: bool,
    /// The value.
    pub value: Node,
}

/// What a tag asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tag {
    /// `!!str`: text, whatever it looks like.
    Text,
    /// `!!int`, `!!float`, `!!bool`, `!!null`: what a plain scalar would be.
    Core,
    /// `!!binary`: base64.
    Binary,
    /// Compose: forget what other files say.
    Reset,
    /// Compose: replace what other files say.
    Override,
    /// Any other, which has no meaning here.
    Other(Arc<str>),
}

impl Node {
    /// A text that nobody wrote, in the place of what it was made from.
    pub fn text(at: &Position, text: impl Into<String>) -> Node {
        let scalar = Scalar { text: text.into(), plain: false };
        Node { at: at.clone(), value: Value::Scalar(scalar), tag: None }
    }

    /// Nothing.
    pub fn null(at: &Position) -> Node {
        let scalar = Scalar { text: String::new(), plain: true };
        Node { at: at.clone(), value: Value::Scalar(scalar), tag: None }
    }

    /// A mapping that nobody wrote.
    pub fn mapping(at: &Position, mapping: Mapping) -> Node {
        Node { at: at.clone(), value: Value::Mapping(mapping), tag: None }
    }

    /// A list that nobody wrote.
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

    /// The place of what is at a path, which is the key's where the last step is one; of the nearest thing above it
    /// where the path ends before.
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

/// Reads every document of a text. Empty documents are nodes with null; a text without any gives none.
///
/// # Errors
///
/// What is no YAML (only the first such place, since nothing after it can be trusted), keys that stand twice, aliases
/// that grow without measure.
pub fn read(source: &Source) -> Result<Vec<Node>, Diagnostics> {
    read_with(source, &mut None)
}

/// [`read`], which takes a key that stands twice with the very same value and tells `repeated` of it.
pub fn read_repeating(source: &Source, repeated: &mut Vec<Diagnostic>) -> Result<Vec<Node>, Diagnostics> {
    let mut told = Some(Vec::new());
    let documents = read_with(source, &mut told);
    repeated.extend(told.into_iter().flatten());
    documents
}

/// Keys that stand twice with one value are a mistake unless there is a list for them.
fn read_with(source: &Source, repeated: &mut Option<Vec<Diagnostic>>) -> Result<Vec<Node>, Diagnostics> {
    // A byte order mark is no content.
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
                    // Nearly always it is the end of the text that was reached.
                    None => {
                        let sentence =
                            "is not YAML: it is between quotes that are opened above and never closed";
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

/// Lines that were indented more than they are written.
///
/// What is between quotes may go on in any column for Go's libraries, while the parser wants it deeper than what it
/// belongs to. Spaces at the start of such a line mean nothing, so they are put there, and taken off again in places.
#[derive(Default)]
struct Indented {
    /// Lines, from 1, and the spaces put before them.
    lines: HashMap<usize, usize>,
    /// Bytes read anew so far.
    read: usize,
}

impl Indented {
    /// `text` with line `number` deeper than any line, and those after it up to one with a quote, which are between
    /// the same quotes; nothing where that was done already, is too much, or a document begins there.
    fn deeper(&mut self, number: usize, text: &str) -> Option<String> {
        self.read += text.len();
        if self.read > MAX_REREAD || self.lines.contains_key(&number) {
            return None;
        }
        let depth = |line: &str| line.len() - line.trim_start_matches([' ', '-', '?']).len();
        // A line that was made deeper is none of those that show how deep lines are.
        let written = text.lines().enumerate().filter(|(i, _)| !self.lines.contains_key(&(i + 1)));
        let spaces = written.map(|(_, line)| depth(line)).max().unwrap_or_default() + 1;
        // No line is put deeper twice, so the spaces are bounded by this, too.
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

/// Why reading stopped.
enum Stop {
    Mistake(Diagnostic),
    /// A line between quotes that is not as deep as the parser wants it.
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
    /// The key that waits for its value, in a mapping.
    key: Option<Key>,
    /// What `<<` brings, in order; applied when the mapping is closed, since its own keys win.
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
    /// Nodes that an alias may name, with their weight.
    anchors: HashMap<usize, (Node, usize)>,
    copied: usize,
    mistakes: Vec<Diagnostic>,
    /// Keys that stand twice with one value, where that is no mistake.
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
                // Starts and ends, and what only options that are off would bring.
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
            let sentence = "is not YAML: what is above has ended before this line, as its indentation is less than the first line's";
            return Diagnostic::new(&at, sentence);
        }
        Diagnostic::new(&at, format!("is not YAML: {}", error.info()))
    }

    /// Counts copies, by which a small file could become a large tree.
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
                // The parser's place of a mapping in blocks may be where its first value begins.
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

    /// Puts a finished node where it belongs.
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
                    "{:?} is here a second time with the same value as in line {line}: remove one",
                    first.key()
                );
                self.repeated.get_or_insert_default().push(Diagnostic::new(&key.at, sentence));
            }
            Slot::Occupied(first) => {
                let sentence = format!(
                    "{:?} is here a second time; it is in line {} already",
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

/// Whether two nodes say the same, wherever they are written.
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

/// Takes what `<<` names; earlier mappings win over later ones.
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
