//! Which mutating policies and webhooks are asked a second time: those that want to be where something changed the object after
//! them. As in Kubernetes the whole chain then runs once more, and no third time.

use std::collections::BTreeSet;

use serde_json::Value;

/// What the mutating members of the chain remember between its two passes.
#[derive(Default)]
pub(crate) struct Reinvocation {
    pub(super) policies: Invocations,
    pub(super) webhooks: Invocations,
}

impl Reinvocation {
    /// Whether a policy or a webhook has changed the object, so that the chain runs again.
    pub(super) fn is_due(&self) -> bool {
        self.policies.has_changed || self.webhooks.has_changed
    }

    /// Begins the second pass.
    pub(super) fn begin_second(&mut self) {
        self.policies.is_second = true;
        self.webhooks.is_second = true;
    }
}

/// The invocations of one member of the chain, each by a name of its own.
#[derive(Default)]
pub(super) struct Invocations {
    is_second: bool,
    has_changed: bool,
    /// The object when the pass ended, where somebody may be asked again.
    output: Option<Value>,
    /// Those that want to be asked again and have seen the object as it is.
    up_to_date: BTreeSet<String>,
    /// Those that want to be asked again and have not.
    outdated: BTreeSet<String>,
}

impl Invocations {
    /// The pass, from 0.
    pub(super) fn round(&self) -> u8 {
        self.is_second.into()
    }

    /// Begins a pass over the object.
    pub(super) fn begin(&mut self, object: &Value) {
        if self.output.as_ref().is_some_and(|output| output != object) {
            self.outdate();
        }
    }

    /// Whether this one is invoked in this pass.
    pub(super) fn is_wanted(&self, name: &str) -> bool {
        !self.is_second || self.outdated.contains(name)
    }

    /// Notes an invocation.
    pub(super) fn done(&mut self, name: String, has_changed: bool, wants_again: bool) {
        if has_changed {
            self.outdate();
            self.has_changed = true;
        }
        if wants_again {
            self.up_to_date.insert(name);
        }
    }

    /// Ends a pass that left the object so.
    pub(super) fn end(&mut self, object: &Value) {
        self.output = (!self.up_to_date.is_empty()).then(|| object.clone());
    }

    fn outdate(&mut self) {
        self.outdated.append(&mut self.up_to_date);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Invocations as `NAME`, with `+` where it changes the object and `?` where it wants to be asked again; those of the second
    /// pass are returned.
    fn second_pass(first: &str, changed_between: bool) -> String {
        let mut passes = Reinvocation::default();
        let mut object = json!(0);
        let mut pass = |passes: &mut Reinvocation| {
            let mut asked = Vec::new();
            passes.webhooks.begin(&object);
            for word in first.split_whitespace() {
                let name = word.trim_end_matches(['+', '?']);
                if !passes.webhooks.is_wanted(name) {
                    continue;
                }
                asked.push(name);
                if word.contains('+') {
                    object = json!(object.as_i64().unwrap_or_default() + 1);
                }
                passes.webhooks.done(name.to_owned(), word.contains('+'), word.contains('?'));
            }
            passes.webhooks.end(&object);
            if changed_between {
                object = json!(object.as_i64().unwrap_or_default() + 1);
            }
            asked.join(" ")
        };
        pass(&mut passes);
        if !passes.is_due() && !changed_between {
            return "-".into();
        }
        passes.begin_second();
        pass(&mut passes)
    }

    #[test]
    fn who_is_asked_again() {
        for (first, changed_between, expect) in [
            ("a b", false, "-"),
            ("a? b?", false, "-"),
            ("a? b+", false, "a"),
            ("a b+ c?", false, ""),
            ("a? b+ c?", false, "a"),
            // What is asked again and changes the object outdates those after it.
            ("a+? b+ c?", false, "a c"),
            ("a? b+? c", false, "a"),
            ("a? b", true, "a"),
            ("a b", true, ""),
        ] {
            assert_eq!(second_pass(first, changed_between), expect, "{first} {changed_between}");
        }
    }
}
