//! Why an expression cannot be compiled or evaluated, in the words of Kubernetes' own implementation.

/// An expression is not valid. The text is one or more lines like `ERROR: <input>:1:5: undefined field 'x'`, each
/// followed by the line of the source and a mark below the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CompileError(pub String);

/// An expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// The expression has cost as much as one evaluation may.
    #[error("operation cancelled: actual cost limit exceeded")]
    CostLimit,
    /// The budget for all expressions of the request is used up.
    #[error("validation failed due to running out of cost budget, no further validation rules will be run")]
    BudgetExhausted,
    /// An operation is not defined for these values. Only values of type `dyn` get so far.
    #[error("no such overload")]
    NoSuchOverload,
    /// A map has no such key, or a field is absent.
    #[error("no such key: {0}")]
    NoSuchKey(String),
    /// A list is shorter.
    #[error("index out of bounds: {0}")]
    IndexOutOfBounds(i64),
    /// A whole number was divided by zero.
    #[error("division by zero")]
    DivisionByZero,
    /// The remainder of a division by zero.
    #[error("modulus by zero")]
    ModulusByZero,
    /// The result is not a number of 64 bits; the name of the type is empty for `int`.
    #[error("{0}integer overflow")]
    IntegerOverflow(&'static str),
    /// The duration or timestamp is out of range.
    #[error("{0} overflow")]
    TimeOverflow(&'static str),
    /// Anything else, in the words of the function that failed.
    #[error("{0}")]
    Failed(String),
}

impl EvalError {
    /// A failure of a function.
    pub fn failed(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }

    /// Whether evaluation must end at once, which no `||` and no `&&` may prevent.
    pub fn is_limit(&self) -> bool {
        matches!(self, Self::CostLimit | Self::BudgetExhausted)
    }
}
