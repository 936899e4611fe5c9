//! What a terminal shows, as text and where it is coloured.

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::control::Figures;
use crate::top::rates::Rates;

fn time(text: &str) -> DateTime<Utc> {
    format!("2030-01-31T{text}Z").parse().expect("a time")
}

fn execution(n: u32, status: ExecutionStatus, finished: Option<&str>) -> Execution {
    Execution {
        run: format!("t-{n:032}"),
        name: format!("job-{n}"),
        instance: format!("i-{n}"),
        status,
        started: Some(time("08:00:00")),
        finished: finished.map(time),
    }
}

fn busy() -> State {
    State {
        database: "/var/lib/a.db".to_owned(),
        now: time("08:00:10"),
        figures: Some(Figures { running: 2, waiting: 1_234_567, started: 0, ended: 0, failed: 0 }),
        rates: Some(Rates { starts: 12.34, ends: 10.0, failures: 0.5 }),
        unended: (100_000, true),
        running: (1..=9).map(|n| execution(n, ExecutionStatus::Running, None)).collect(),
        ended: vec![
            execution(7, ExecutionStatus::Failed, Some("08:00:01.250")),
            execution(8, ExecutionStatus::Success, Some("08:00:00.007")),
        ],
        due: vec![Timer {
            run: format!("t-{:032}", 5),
            name: "nightly".to_owned(),
            frequency: "0 30 2 * * ? Asia/Shanghai".to_owned(),
            at: time("10:00:10"),
        }],
    }
}

fn drawn(state: &State, colours: bool, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    let draw = terminal.draw(|frame| frame.render_widget(View { state, colours }, frame.area()));
    draw.expect("it draws");
    terminal.backend().buffer().clone()
}

fn lines(buffer: &Buffer) -> Vec<String> {
    let width = usize::from(buffer.area.width).max(1);
    let cells: Vec<&str> = buffer.content.iter().map(|cell| cell.symbol()).collect();
    cells.chunks(width).map(|line| line.concat().trim_end().to_owned()).collect()
}

#[test]
fn everything_has_its_place() {
    let check = |state: &State, width, height, want: &[&str]| {
        assert_eq!(lines(&drawn(state, true, width, height)), want, "{width} by {height}");
    };
    check(
        &busy(),
        80,
        13,
        &[
            "2030-01-31T08:00:10Z  /var/lib/a.db  q quits",
            "running 2  waiting 1,234,567",
            "per second  starts 12.3  ends 10.0  failures 0.5",
            "",
            "RUNNING         INSTANCE                     FOR  COMMAND",
            "t-000000000000  i-1                      10.00 s  job-1",
            "",
            "DUE NEXT        SCHEDULE                      IN  COMMAND",
            "t-000000000000  0 30 2 * * ? Asia/           2 h  nightly",
            "",
            "ENDED           INSTANCE                    TOOK  STATUS      COMMAND",
            "t-000000000000  i-7                       1.25 s  Failed      job-7",
            "t-000000000000  i-8                         7 ms  Success     job-8",
        ],
    );
    check(&busy(), 30, 2, &["2030-01-31T08:00:10Z  /var/lib", "running 2  waiting 1,234,567"]);
    check(&busy(), 7, 9, &["2030-01", "running", "per sec", "", "", "", "", "", ""]);
    check(&busy(), 1, 1, &["2"]);
    let alone = State { figures: None, rates: None, ..busy() };
    check(
        &alone,
        40,
        4,
        &[
            "2030-01-31T08:00:10Z  /var/lib/a.db  q q",
            "not ended 100,000+",
            "nobody who runs the database answers",
            "",
        ],
    );
    let new = State { rates: None, ..busy() };
    assert_eq!(lines(&drawn(&new, true, 60, 3))[2], "per second  starts –  ends –  failures –");
    let wide = lines(&drawn(&busy(), true, WIDE, 13));
    assert!(wide[5].starts_with("t-00000000000000000000000000000001  i-1 "), "{}", wide[5]);
}

#[test]
fn colours_are_those_of_what_is_shown_or_none() {
    let coloured = |colours: bool| {
        let buffer = drawn(&busy(), colours, 80, 13);
        let lines = buffer.content.chunks(80);
        lines.map(|line| line[0].fg).filter(|colour| *colour != Color::Reset).collect::<Vec<_>>()
    };
    assert_eq!(coloured(true), [Color::Red, Color::Red, Color::Green]);
    assert_eq!(coloured(false), []);
}

#[test]
fn thousands_are_apart() {
    for (number, want) in [
        (0, "0"),
        (999, "999"),
        (1_000, "1,000"),
        (100_000, "100,000"),
        (u64::MAX, "18,446,744,073,709,551,615"),
    ] {
        assert_eq!(grouped(number), want);
    }
}
