from hypothesis import given
from hypothesis import strategies as st

from yatsude.data.sources.roff import is_man, prose

PAGE = r"""'\" t
.\" Copyright somebody
.TH LS "1" "2021年5月" "GNU coreutils"
.SH 名前
ls \- ディレクトリの内容を\
リストする
.SH 書式
.B ls
[\fI\,オプション\/\fR]...
.SH 説明
これは \fBls\fP の
説明です。
\fBopen\fP()  を、
呼びます。 .\" not a comment here
.PP
Untranslated English paragraph.
.TP
\fB\-a\fR, \fB\-\-all\fR
\&. で始まる要素を無視しない
.TP
.BR \-c              "                 \-lt と共に"
使います。
.IP \(bu 2
ひとつ \(lqめ\(rq
.nf
int コード(void);
.fi
.if t .B 印刷だけに出る文
.if n 画面に出る文。
.de XX
定義の中は読まない
..
.SH 著者
誰か と誰か
"""


def test_a_page_becomes_prose():
    assert is_man(PAGE)
    assert prose(PAGE) == "\n".join(
        [
            "名前",
            "ls - ディレクトリの内容をリストする",
            "",
            "説明",
            "これは ls の説明です。 open() を、呼びます。 .",
            "-a, --all: . で始まる要素を無視しない",
            "-c: -lt と共に使います。",
            "・ひとつ “め”",
            "画面に出る文。",
        ]
    )


def test_other_dialects_are_told_apart():
    assert not is_man(".so man1/other.1\n")
    assert not is_man(".Dd 1999\n.Sh 名前\n")


def test_a_page_without_japanese_leaves_nothing():
    assert prose(".TH X 1\n.SH NAME\nx \\- does things\n") == ""


@given(
    st.lists(
        st.sampled_from(
            [
                ".SH",
                ".TP",
                ".PP",
                ".IP x",
                ".nf",
                ".fi",
                ".B",
                ".if n あ",
                ".ie t \\{\\",
                "\\}",
                "あ\\c",
                "い",
                "\\",
                '."',
                "'",
                ".de x",
                "..",
            ]
        )
    )
)
def test_no_order_of_macros_breaks_it(lines):
    assert ".SH" not in prose("\n".join(lines))


@given(st.text("あ\\f([]*'n.-u0 "))
def test_no_escape_breaks_it(text):
    prose(f".TH X 1\n.SH 名前\n{text}\n")
