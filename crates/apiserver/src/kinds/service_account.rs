//! ServiceAccounts.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kinds::strategy::Strategy;
use crate::table::Column;
use crate::table::format::{age, count};

#[derive(Debug)]
pub struct ServiceAccount;

impl Strategy for ServiceAccount {
    fn columns(&self) -> &[Column] {
        const { &[Column::NAME, Column::integer("Secrets"), Column::AGE] }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = object["metadata"]["name"].clone();
        vec![name, json!(count(&object["secrets"])), json!(age(object, now))]
    }
}
