//! A source file as `tidy` sees it: its functions and the paths that it uses, tests left out.

use std::collections::BTreeMap;

use proc_macro2::{Spacing, TokenStream, TokenTree};
use quote::ToTokens;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Block, Item, Signature, UseTree};

/// What is checked in a file.
pub struct Source {
    /// Lines, those of items that are compiled for tests only left out.
    pub lines: usize,
    /// Functions and methods, closures within them included.
    pub functions: Vec<Function>,
    /// Paths used in code and macros, resolved through the file's `use` declarations.
    pub paths: Vec<Used>,
    /// The `use` declarations: the name in this file (`*` for all names of a module) and the full path.
    pub imports: Vec<(String, String)>,
}

/// A function.
pub struct Function {
    /// Its name.
    pub name: String,
    /// The line of its signature, from 1.
    pub line: usize,
    /// Lines from its signature to its closing brace.
    pub lines: usize,
}

/// A path at one place.
pub struct Used {
    /// `tokio::task::spawn`.
    pub path: String,
    /// Its line, from 1.
    pub line: usize,
}

impl Source {
    /// Reads a file.
    pub fn parse(text: &str) -> syn::Result<Self> {
        let file = syn::parse_file(text)?;
        let mut reader =
            Reader { imports: Imports::default(), functions: Vec::new(), tokens: Vec::new(), left_out: 0 };
        reader.items(&file.items);
        let Reader { imports, functions, tokens, left_out } = reader;
        let mut paths = Vec::new();
        tokens.into_iter().for_each(|tokens| find_paths(tokens, &imports, &mut paths));
        Ok(Self { lines: text.lines().count() - left_out, functions, paths, imports: imports.all() })
    }
}

/// Names that `use` declarations bring into a file. One table for the whole file: a name that two modules of one file
/// import differently is rare, and then reported rather than missed.
#[derive(Default)]
struct Imports {
    /// Full paths by the name they have here.
    names: BTreeMap<String, Vec<String>>,
    /// Modules of which everything is imported.
    globs: Vec<String>,
}

impl Imports {
    fn add(&mut self, prefix: &str, tree: &UseTree) {
        let join = |name: &dyn ToString| match prefix {
            "" => name.to_string(),
            prefix => format!("{prefix}::{}", name.to_string()),
        };
        match tree {
            UseTree::Path(path) => self.add(&join(&path.ident), &path.tree),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add(prefix, tree)),
            UseTree::Glob(_) => self.globs.push(prefix.to_owned()),
            UseTree::Name(name) if name.ident == "self" => {
                let last = prefix.rsplit("::").next().unwrap_or(prefix).to_owned();
                self.names.entry(last).or_default().push(prefix.to_owned());
            }
            UseTree::Name(name) => {
                self.names.entry(name.ident.to_string()).or_default().push(join(&name.ident))
            }
            UseTree::Rename(rename) => {
                self.names.entry(rename.rename.to_string()).or_default().push(join(&rename.ident));
            }
        }
    }

    /// All declarations, as pairs of name and full path.
    fn all(self) -> Vec<(String, String)> {
        let globs = self.globs.into_iter().map(|path| ("*".to_owned(), path));
        let names = self.names.into_iter();
        names
            .flat_map(|(name, paths)| paths.into_iter().map(move |path| (name.clone(), path)))
            .chain(globs)
            .collect()
    }

    /// Everything that a path may mean.
    fn resolve(&self, path: &str) -> Vec<String> {
        let (first, rest) = path.split_once("::").map_or((path, ""), |(first, rest)| (first, rest));
        let with_rest =
            |full: &String| if rest.is_empty() { full.clone() } else { format!("{full}::{rest}") };
        let mut found: Vec<String> = self.names.get(first).into_iter().flatten().map(with_rest).collect();
        if found.is_empty() {
            found.extend(self.globs.iter().map(|glob| format!("{glob}::{path}")));
            found.push(path.to_owned());
        }
        found
    }
}

struct Reader {
    imports: Imports,
    functions: Vec<Function>,
    /// Tokens of the items that are not for tests.
    tokens: Vec<TokenStream>,
    /// Lines of those that are.
    left_out: usize,
}

impl Reader {
    fn items(&mut self, items: &[Item]) {
        for item in items {
            if attributes(item).iter().any(is_for_tests) {
                let span = item.span();
                self.left_out += span.end().line + 1 - span.start().line;
                continue;
            }
            match item {
                Item::Use(item) => {
                    self.imports.add("", &item.tree);
                    // The import itself counts as a use where a function is imported.
                    self.tokens.push(item.to_token_stream());
                }
                Item::Mod(module) => {
                    if let Some((_, items)) = &module.content {
                        self.items(items);
                    }
                }
                item => {
                    self.visit_item(item);
                    self.tokens.push(item.to_token_stream());
                }
            }
        }
    }

    fn function(&mut self, signature: &Signature, block: &Block) {
        let line = signature.span().start().line;
        let lines = block.span().end().line + 1 - line;
        self.functions.push(Function { name: signature.ident.to_string(), line, lines });
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.imports.add("", &item.tree);
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// `#[cfg(test)]`, also within `all(...)`.
fn is_for_tests(attribute: &Attribute) -> bool {
    let Ok(list) = attribute.meta.require_list() else { return false };
    let condition = list.tokens.to_string();
    list.path.is_ident("cfg")
        && (condition == "test"
            || condition.starts_with("all") && condition.contains("test") && !condition.contains("not"))
}

/// Collects `a :: b :: c` from tokens, within groups too.
fn find_paths(tokens: TokenStream, imports: &Imports, found: &mut Vec<Used>) {
    let mut path = String::new();
    let mut line = 0;
    let mut colons = 0;
    let mut finish = |path: &mut String, line: usize| {
        if !path.is_empty() {
            found.extend(imports.resolve(path).into_iter().map(|path| Used { path, line }));
            path.clear();
        }
    };
    let mut groups = Vec::new();
    for token in tokens {
        match token {
            TokenTree::Ident(ident) if colons == 2 && !path.is_empty() => {
                path.push_str("::");
                path.push_str(&ident.to_string());
                colons = 0;
            }
            TokenTree::Ident(ident) => {
                finish(&mut path, line);
                line = ident.span().start().line;
                path = ident.to_string();
                colons = 0;
            }
            TokenTree::Punct(punct)
                if punct.as_char() == ':' && (colons == 1 || punct.spacing() == Spacing::Joint) =>
            {
                colons += 1;
            }
            other => {
                finish(&mut path, line);
                colons = 0;
                if let TokenTree::Group(group) = other {
                    groups.push(group.stream());
                }
            }
        }
    }
    finish(&mut path, line);
    groups.into_iter().for_each(|group| find_paths(group, imports, found));
}
