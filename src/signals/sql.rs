//! A query that is watched: its first value must stay within a limit.

use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};

use super::excerpt;
use super::postgres::Database;
use super::traffic::{Answer, Call, CallId, Effect, TrafficPlan};

/// A query with its limit, asked on the schedule of [`super::traffic`].
#[derive(Debug)]
pub struct WatchedQuery {
    /// Where it is asked.
    pub database: Database,
    /// The query, rendered.
    pub sql: String,
    /// The first column of its first row, a number, may be at most this.
    pub at_most: f64,
}

impl WatchedQuery {
    /// How such a query is asked: once a period. A database that does not answer is a blind sensor, so the query's own
    /// end lies before the age at which the schedule would call it late.
    #[must_use]
    pub fn plan(&self, signal: String, period: Duration) -> TrafficPlan {
        let age = self.database.patience() * 2;
        TrafficPlan::periodic(signal, period, age, age)
    }

    async fn ask(&self) -> Result<Answer, String> {
        let rows = self
            .database
            .query(&self.sql)
            .await
            .map_err(|error| error.to_string())?;
        let Some(Some(Some(value))) = rows.first().map(|row| row.first()) else {
            return Err(format!("`{}` gave no value", excerpt(&self.sql, 80)));
        };
        judge(value, self.at_most)
    }
}

fn judge(value: &str, at_most: f64) -> Result<Answer, String> {
    let shown = excerpt(value, 80);
    // NaN compares with nothing, and so would pass or fail by accident.
    let number: f64 = value
        .trim()
        .parse()
        .ok()
        .filter(|n: &f64| !n.is_nan())
        .ok_or_else(|| format!("`{shown}` is not a number"))?;
    Ok(if number <= at_most {
        Answer::Right
    } else {
        Answer::Wrong {
            why: format!("{shown} is above {at_most}"),
        }
    })
}

impl Call for WatchedQuery {
    fn prepare(&self, _: CallId) -> BoxFuture<'_, Result<(), String>> {
        async { Ok(()) }.boxed()
    }

    fn send(&self, _: CallId) -> BoxFuture<'_, Result<Answer, String>> {
        self.ask().boxed()
    }

    fn effect(&self, _: CallId) -> BoxFuture<'_, Result<Effect, String>> {
        async { Ok(Effect::Seen) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_right_up_to_its_limit_and_no_number_is_no_answer() {
        let wrong = |why: &str| Ok(Answer::Wrong { why: why.to_owned() });
        let rows = [
            ("5", Ok(Answer::Right)),
            ("5.01", wrong("5.01 is above 5")),
            ("NaN", Err("`NaN` is not a number".to_owned())),
            ("", Err("`` is not a number".to_owned())),
        ];
        for (value, expected) in rows {
            assert_eq!(judge(value, 5.0), expected, "{value}");
        }
    }
}
