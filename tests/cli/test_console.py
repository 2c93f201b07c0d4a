import pytest
from rich.console import Console

from slrctl.cli.console import print_facts, print_lines, print_table, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b31m", r"\x9b31m"),
        ("bell\x07", r"bell\x07"),
        ("two\nlines", r"two\nlines"),
        ("\u202eturned", r"\u202eturned"),
        ("half \ud800", r"half \ud800"),
        ("책 \u0645\u06cc\u200c क्\u200dष é", "책 \u0645\u06cc\u200c क्\u200dष é"),
    ],
)
def test_what_commands_a_terminal_is_written_out_and_nothing_else(text, shown):
    assert visible(text) == shown


def test_no_table_list_or_line_lets_a_strangers_text_through(capsys):
    console = Console(force_terminal=False, width=80)
    evil = "[red]x[/red]\x1b]0;title\x07"

    print_lines(console, [evil])
    print_facts(console, {"gloss": evil})
    print_table(console, evil, ["a", "b"], [[evil, "1"]])

    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\x07" not in printed
    assert printed.count(r"[red]x[/red]\x1b]0;title\x07") == 4
