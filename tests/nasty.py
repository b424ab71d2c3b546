"""Texts that some program would obey: captions, labels, class and run names of every test that shows them."""

NASTY = (
    # mathtext of matplotlib, and names that it leaves out of legends
    *("$\\frac{1}{2", "from $5 to $6_x^{", "a \\$ b $", "_hidden", "_child0"),
    # markup and emoji of rich
    *("[/x]", "[bold red]a[/bold red]", "[link=http://x]y", ":smile:", "\\[b]"),
    # HTML, attributes and templates
    *("<script>alert('x')</script>", '" onload="x', "' onload='x", "</title>&amp;<b>", "{{ 7 * 7 }}{% raw %}"),
    # terminals: colours, titles, C1 codes, backspace, writing direction, lines
    *("a\x1b[2J\x1b[31mred", "\x1b]0;title\x07", "\x9b31mred", "x\x08y", "a\rb", "evil\u202egnp.exe", "\u2066x\u2028y"),
    *("two\nlines", "tab\tb", "\x7f\x01"),
    # formulas of spreadsheets
    *("=1+1", '=HYPERLINK("http://x","y")', "+1-1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "'=x", "\uff1d1"),
    # formats, Markdown, paths, half a character of a file name that is not UTF-8
    *("%s %d %(x)s {x}", "# head\n- *item*", "`a` **b**", "../../etc/x", ".", 'a;b,c"d', "\udcff.png"),
)
