//! Results that are found under other arguments from now on.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::Arc;

use super::call::Call;
use super::record::{self, CallInfo, Record};
use super::run;
use super::settings::Stage;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::value::Value;

/// A result on its way to another key.
struct Move<V> {
    call: Call,
    info: CallInfo,
    to: Key,
    /// What is found under its key now, before another result takes that.
    value: Option<Arc<V>>,
}

impl Stage {
    /// Gives stored results of type `V` new keys: `change` gets what is known of a call and may change its arguments, its
    /// stage and its module; if it says yes, the result is found under them, and under this stage's version and settings, from
    /// now on. So results survive when a function gets another parameter, version, name or module. Gives how many were moved.
    ///
    /// ```
    /// # use icechest::Key;
    /// # let chest = icechest::Chest::temporary()?;
    /// chest.stage("train").version(1).arg("rate", 0.1).run(|| 0.97)?;
    /// let new = chest.stage("train").version(2);
    /// let moved = new.upgrade::<f64>(|call| {
    ///     call.arguments.insert("seed".into(), Key::from(0));
    ///     call.version == "1"
    /// })?;
    /// assert_eq!(moved, 1);
    /// assert_eq!(*new.arg("rate", 0.1).arg("seed", 0).run(|| -> f64 { unreachable!() })?, 0.97);
    /// # Ok::<(), icechest::Error>(())
    /// ```
    ///
    /// Results whose calls are [not known](CallInfo::is_cut) in full stay where they are. Functions with
    /// [`#[stage]`](macro@crate::stage) have a module, so theirs are found with [`calls`](Self::calls) of a stage without one,
    /// and keep it. Where a source counts, it is this stage's, or else that of the call. To other stages a result that was moved
    /// is another argument.
    ///
    /// # Errors
    /// Those of reading and writing; then some may not have been moved, and of those that change places one may be lost.
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for a stage that is [`typed`](Self::typed), and
    /// [`Invalid`](crate::ErrorKind::Invalid) when two results would get one key, or one that another result has: then none is
    /// moved.
    pub fn upgrade<V: Value>(&self, mut change: impl FnMut(&mut CallInfo) -> bool) -> Result<usize> {
        if self.settings.reading.typed {
            return Err(Error::unsupported(
                "types of arguments are not stored, so a stage that counts them cannot be upgraded",
            ));
        }
        let staying = record::calls(&self.chest)?.into_iter().map(|call| (call.key.clone(), call));
        let mut staying: HashMap<Key, CallInfo> = staying.collect();
        let calls = self.calls()?.into_iter().filter(|call| V::reads(&call.type_name) && !call.is_cut);
        let mut moves: HashMap<Key, Move<V>> = HashMap::new();
        let mut order = Vec::new();
        let mut targets: HashMap<Key, Key> = HashMap::new();
        for mut info in calls {
            if !change(&mut info) {
                continue;
            }
            let call = self.of_call(&info).call().with_arguments(mem::take(&mut info.arguments))?;
            let to = call.key::<V>()?;
            if let Some(other) = targets.insert(to.clone(), info.key.clone()) {
                let message = format!("this result and that under {other} would get one key; tell them apart");
                return Err(Error::invalid(message).with_key(&info.key));
            }
            if to != info.key {
                order.push(info.key.clone());
                moves.insert(info.key.clone(), Move { call, info, to, value: None });
            }
        }
        order.iter().for_each(|key| _ = staying.remove(key));
        // A copy of the result itself is what an upgrade left that was ended half-way.
        let is_in_the_way = |one: &&Move<V>| {
            let is_copy = |call: &CallInfo| call.computed == one.info.computed && call.took == one.info.took;
            staying.get(&one.to).is_some_and(|call| !is_copy(call))
        };
        if let Some(Move { info, to, .. }) = moves.values().find(is_in_the_way) {
            let message = format!("there is a result under {to} already, which this one would get; forget one of them");
            return Err(Error::invalid(message).with_key(&info.key));
        }
        let mut moved = 0;
        for key in order {
            moved += self.move_from(key, &mut moves)?;
        }
        Ok(moved)
    }

    /// This stage, for the function that a call is of.
    fn of_call(&self, call: &CallInfo) -> Self {
        self.clone().set(|settings| {
            settings.name.clone_from(&call.stage);
            settings.module.clone_from(&call.module);
            if settings.source.is_empty() {
                settings.source.clone_from(&call.source);
            }
        })
    }

    /// Moves a result, after those that are in its way: a key may be the old one of a result and the new one of another.
    /// Gives how many were moved.
    fn move_from<V: Value>(&self, first: Key, moves: &mut HashMap<Key, Move<V>>) -> Result<usize> {
        let (mut way, mut next) = (Vec::new(), first);
        while let Some(one) = moves.remove(&next) {
            next = one.to.clone();
            way.push(one);
        }
        // The last may go where one of the others is: that is taken into memory.
        if let Some(index) = way.iter().position(|one| one.info.key == next) {
            match self.chest.find(&next)? {
                Some(value) => way[index].value = Some(value),
                None => _ = way.remove(index),
            }
        }
        let mut moved = 0;
        let mut taken = HashSet::new();
        for Move { call, info, to, value } in way.into_iter().rev() {
            let value = match value {
                Some(value) => Some(value),
                None => self.chest.find(&info.key)?,
            };
            let Some(value) = value else { continue };
            run::keep(&call, &to, value, Record::moved(&call.signature::<V>()?, &info))?;
            if !taken.contains(&info.key) {
                self.chest.remove(&info.key)?;
            }
            taken.insert(to);
            moved += 1;
        }
        Ok(moved)
    }
}
