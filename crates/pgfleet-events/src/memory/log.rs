//! All events of a store, in order.

use crate::event::Event;
use crate::moment::Moment;
use crate::position::Position;

/// How many events are in one piece. Pieces never move, so a log that grows copies nothing.
const PIECE: usize = 4_096;

/// Numbers of events begin with 1. What was removed leaves an empty place; a piece of empty places is given back.
#[derive(Debug, Default)]
pub(super) struct Log {
    pieces: Vec<Piece>,
    last: u64,
}

#[derive(Debug)]
struct Piece {
    events: Vec<Option<Event>>,
    live: u64,
    first_at: Moment,
}

impl Log {
    /// The number of the newest event.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    pub(super) fn push(&mut self, mut event: Event) -> u64 {
        self.last += 1;
        event.position = Some(position(self.last));
        match self.pieces.last_mut() {
            Some(piece) if piece.events.len() < PIECE => {
                piece.live += 1;
                piece.events.push(Some(event));
            }
            _ => {
                let first_at = event.at;
                let mut events = Vec::with_capacity(PIECE);
                events.push(Some(event));
                self.pieces.push(Piece { events, live: 1, first_at });
            }
        }
        self.last
    }

    pub(super) fn get(&self, number: u64) -> Option<&Event> {
        let (piece, place) = place(number)?;
        self.pieces.get(piece)?.events.get(place)?.as_ref()
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Event> {
        let (piece, place) = place(number)?;
        let piece = self.pieces.get_mut(piece)?;
        let event = piece.events.get_mut(place)?.take()?;
        piece.live -= 1;
        if piece.live == 0 && piece.events.len() == PIECE {
            piece.events = Vec::new();
        }
        Some(event)
    }

    /// Goes through the events behind a number, with their numbers.
    pub(super) fn behind(&self, number: u64) -> impl Iterator<Item = (u64, &Event)> {
        let start = usize::try_from(number).unwrap_or(usize::MAX);
        let (first, skip) = (start / PIECE, start % PIECE);
        self.pieces.iter().enumerate().skip(first).flat_map(move |(index, piece)| {
            let skip = if index == first { skip } else { 0 };
            let base = (index * PIECE) as u64 + 1;
            piece
                .events
                .iter()
                .enumerate()
                .skip(skip)
                .filter_map(move |(place, event)| event.as_ref().map(|event| (base + place as u64, event)))
        })
    }

    /// How many events are behind a number.
    pub(super) fn count_behind(&self, number: u64) -> u64 {
        if number >= self.last {
            return 0;
        }
        let start = usize::try_from(number).unwrap_or(usize::MAX);
        let (first, skip) = (start / PIECE, start % PIECE);
        let Some(piece) = self.pieces.get(first) else { return 0 };
        let rest: u64 = self.pieces[first + 1..].iter().map(|piece| piece.live).sum();
        piece.events.iter().skip(skip).flatten().count() as u64 + rest
    }

    /// The number before the first event of a time or later.
    pub(super) fn before(&self, time: Moment) -> u64 {
        let piece = self.pieces.partition_point(|piece| piece.first_at < time).saturating_sub(1);
        self.behind((piece * PIECE) as u64)
            .find(|(_, event)| event.at >= time)
            .map_or(self.last, |(number, _)| number - 1)
    }
}

fn place(number: u64) -> Option<(usize, usize)> {
    let index = usize::try_from(number.checked_sub(1)?).ok()?;
    Some((index / PIECE, index % PIECE))
}

/// The position of a number.
pub(super) fn position(number: u64) -> Position {
    if number == 0 { Position::START } else { Position::new(1, number) }
}

/// The number of a position: everything is in tick 1.
pub(super) fn number(position: Position) -> u64 {
    match position.tick {
        0 => 0,
        1 => position.seq,
        _ => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at: i64) -> Event {
        Event {
            stream: "a".into(),
            version: 1,
            position: None,
            at: Moment::from_micros(at),
            id: uuid::Uuid::nil(),
            kind: "Made".into(),
            data: crate::Json::trusted("{}"),
            meta: crate::Meta::default(),
        }
    }

    #[test]
    fn a_log_of_several_pieces_is_read_counted_and_searched() {
        let mut log = Log::default();
        for at in 1..=10_000 {
            log.push(event(at));
        }
        assert_eq!(log.behind(4_095).next().unwrap().0, 4_096);
        assert_eq!(log.behind(4_096).next().unwrap().0, 4_097);
        assert_eq!(log.count_behind(3), 9_997);
        assert_eq!(log.before(Moment::from_micros(4_097)), 4_096);
        assert_eq!(log.before(Moment::from_micros(0)), 0);
        assert_eq!(log.before(Moment::from_micros(20_000)), 10_000);
        for number in 1..=5_000 {
            assert!(log.remove(number).is_some());
        }
        assert_eq!(log.behind(0).next().unwrap().0, 5_001);
        assert_eq!(log.count_behind(0), 5_000);
        assert!(log.get(1).is_none() && log.get(5_001).is_some());
    }
}
