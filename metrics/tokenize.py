"""The COCO caption tokens: what coco-caption's ``PTBTokenizer`` (Java) gives, in pure Python.

Published caption scores are computed on Penn Treebank tokens, lower-cased, with a list of punctuation tokens removed. A
tokenizer that differs in a comma moves BLEU and CIDEr-D in the third digit, so the rules here follow the Java program
(Stanford's, version 3.4.1, options ``-preserveLines -lowerCase``) as it behaves, its oddities included:

- clitics are split off (``dog's`` -> ``dog 's``, ``don't`` -> ``do n't``), and so are ``cannot``, ``gonna`` ...;
- hyphens and slashes inside words stay (``t-shirt``, ``and/or``), and so do full stops between letters (``end.The``);
- the full stop stays on initials and known abbreviations (``St.``, ``a.m.``, ``P.``) and goes elsewhere;
- brackets become ``-lrb-``, ``-rrb-`` ... and *stay*: the removal list has them in capitals;
- repeated marks (``!!``, ``?!``) stay: the removal list has single ones only;
- ``3 1/2`` and telephone numbers are one token with a no-break space inside.

The rules were found by running the Java program on all short letter strings, on the captions of COCO, Flickr8k, UCM and
Sydney (no difference), and on these captions with random edits (0.3 % differ; most of them end in a lone letter and a
full stop, where the Java program looks at the next line; here the full stop is dropped).
"""

# ruff: noqa: RUF001 - typographic quotes and dashes are what the rules are about

import re
from functools import lru_cache

PUNCTUATION = frozenset(("''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"))
"""Tokens that are removed. coco-caption's list also has brackets in capitals, which never occur after lower-casing."""


def _words(text: str) -> list[str]:
    return text.split()


_ABBREVIATIONS = _words("""
    al cf co ct dr ft ga jr ky lt md mo mr ms mt ph rd rt sq sr st va vs vt wm adj adm adv ala apr aug ave bhd cie col
    cos cpl dak dec det drs ens esq est etc ext feb fla fri gen gov hon inc ind jan jos jul jun kan ltd maj mar mme mon
    mrs neb nev nov oct pfc plc pvt rep rev sen sep seq sfc sgt spc ste sys tel thu tue wed wis wyo alex ariz assn asst
    atty bldg blvd brig bros capt cmdr colo conn corp dept elec govs insp intl invt kans mich minn mlle mont msgr natl
    okla penn pres prof reps sens sept supt tenn tues univ wisc assoc calif lieut thurs comdr attys messrs
    bancorp profs supts treas
    """)
# ordinary words ("ark", "miss", "ill") unless written as names
_CAPITAL_ABBREVIATIONS = _words("ark wash az miss ore la tex pa del mass ill")
_NUMBERED_ABBREVIATIONS = _words("art op nos pp fig prop ca figs no")
_REPLACED = {
    "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-", '"': "''",
    "€": "$", "£": "#", "¢": "cents", "½": "1/2", "¼": "1/4", "¾": "3/4", "&amp;": "&", "&lt;": "<", "&gt;": ">",
    "’": "'", "‘": "`", "“": "``", "”": "''", "«": "``", "»": "''", "…": "...", "—": "--", "–": "--", "―": "--",
}  # fmt: skip
_LETTER = r"[^\W\d_²³¹¼½¾]"
_ALNUM = r"[^\W_²³¹¼½¾]"
_NOT_IN_WORD = rf"(?!{_ALNUM})"
_QUOTE = "['’`]"
_ENDING = rf"(?i:[smdn]|ll|re|ve)(?!{_LETTER})"
_CLITIC = rf"'{_ENDING}|’(?i:ll|re|ve)(?!{_LETTER})|’[smdnSMDN]"
_NT = rf"[nN]{_QUOTE}[tT]"
_CUT = "(?![\\w'’-])"
# words that begin a sentence: a single initial before one of them loses its full stop
_OPENERS = _words("""
    a an the this these that they there then their he she her it its we you our one some many more other such what when
    while yet once now here if in at as after about additionally according but earlier however last since so
    """)


def _names(words: list[str], lower: bool = True) -> str:
    """An alternation of ``words`` in the spellings that the Java program knows: mr (if ``lower``), Mr, MR."""
    return "|".join(sorted({form for w in words for form in ((w,) if lower else ()) + (w.capitalize(), w.upper())}))


# The Java program takes the longest match at each place; in a Python alternation the first match wins. So the order
# below is from long to short, and look-aheads keep a short rule from cutting a longer token.
_RULES = (
    # mark-up and addresses
    r"</?[A-Za-z][\w.:-]*(?:\s+[A-Za-z][\w.:-]*(?:=(?:\"[^\"<>]*\"|'[^'<>]*'))?)*\s*/?>|<[!?][A-Za-z-][^<>]*>",
    r"&(?i:amp|lt|gt);",
    r"https?://[^\s\"<>|()]*[^\s\"<>|().,!?:;'-]",
    r"<?[A-Za-z0-9][\w.+-]*@[A-Za-z0-9][\w-]*(?:\.[A-Za-z0-9][\w-]*)*>?",
    r"@[A-Za-z_]\w*|\#[A-Za-z]+",
    # telephone numbers and fractions, across a blank
    rf"(?:\(\d{{2,3}}\)[ ]?|\+{{0,2}}(?:\d{{2,4}}[- ])?\d{{2,4}}[- ])\d{{3,4}}[- ]?\d{{3,5}}{_NOT_IN_WORD}",
    rf"(?:\d{{1,4}}[- ])?\d{{1,4}}\\?/\d{{1,4}}(?![\d/]){_NOT_IN_WORD}",
    # faces
    rf"[<>]?[:;=][-o*']?[()DPdpO\\{{@|\[\]](?!{_LETTER})|[-^x=~<>']_[-^x=~<>'](?!\w)",
    # apostrophes
    r"'[nN]'|['’][eE][mM]|['’](?:til|Til|TIL|cause|Cause)(?![A-Za-z])|['’][2-9]0s|['’]\d\d(?!\w)",
    r"['’][tT](?=(?:is|was|IS|WAS)(?![A-Za-z]))",
    rf"(?:[A-HJ-XZdlno]{_QUOTE}(?!{_ENDING}){_LETTER}{{2,}}"
    rf"|{_LETTER}+[aeiouyAEIOUY]{_QUOTE}(?!{_ENDING})[aeiouA-Z]{_LETTER}*)(?:-{_ALNUM}+)*",
    _CLITIC,
    rf"[cC]{_QUOTE}est|[lL]i{_QUOTE}l|[eE]{_QUOTE}er",
    rf"(?:[oO]l|[lLdDjJ])['’](?!{_ENDING})|[yY]['’](?={_LETTER}{{2}}(?<!ll)(?<!re)(?<!ve))",
    rf"{_NT}(?!{_LETTER})",
    # words cut in two; a word before n't
    rf"(?:[cC]an(?=not{_CUT})|CAN(?=NOT{_CUT})|[gG]on(?=na{_CUT})|[gG]ot(?=ta{_CUT})|[lL]em(?=me{_CUT})"
    rf"|[gG]im(?=me{_CUT})|[wW]an(?=na{_CUT}))",
    rf"{_LETTER}+?(?={_NT})",
    # full stops that stay
    rf"[A-Za-z](?=\.(?:\s*$|\s+(?:{'|'.join(f'{w.capitalize()}|{w.upper()}' for w in _OPENERS)})(?!\w)))",
    rf"(?:(?:[Pp]h\.[Dd]|[A-Za-z](?:\.[A-Za-z])*)\.)(?:-[A-Za-z](?:\.[A-Za-z])+\.|-{_ALNUM}+|(?!{_LETTER}))",
    rf"(?:{_names(_ABBREVIATIONS)}|mfg|Mfg|mtg|Mtg|pty|Pty|pte|Pte|{_names(_CAPITAL_ABBREVIATIONS, lower=False)})"
    rf"\.(?!{_LETTER}|\.\.)",
    rf"(?:{_names(_NUMBERED_ABBREVIATIONS)})\.(?=[ ]?\d)",
    rf"{_ALNUM}{{1,3}}\.-{_ALNUM}+|{_ALNUM}+(?:[-_]{_ALNUM}+)*\.(?=[,;:])",
    # words
    r"[A-Z]+(?:[+&][A-Z]+)+",
    r"[cC]\+\+|[cfCF]\#|[A-Z]+\$",
    r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}",
    rf"{_LETTER}{_ALNUM}*(?:[.!?]{_LETTER}{_ALNUM}*)+(?:-{_ALNUM}+)*",
    r"[-+]?\d*(?:[.,:]\d+)+",
    rf"{_ALNUM}+(?:[-_]{_ALNUM}+)+",
    rf"{_ALNUM}+",
    r"[-+]\d+",
    # marks
    r"\.{3,4}|-{5,}|-{2,4}|[!?]+|\*+|\#+|_+|''|``|\S",
)
_TOKEN = re.compile("|".join(f"(?:{rule})" for rule in _RULES))
_CURLY = re.compile(rf"’(?i:[smd]|ll|re|ve)|{_NT}")
_KEEPS_STOP = frozenset(_ABBREVIATIONS + _CAPITAL_ABBREVIATIONS + _words("mfg mtg pty pte"))
_MAY_SPLIT = re.compile(r"(?:[cC]an|CAN)(?:not|NOT)|[gG](?:onna|otta|imme)|[lL]emme|[wW]anna")
# Chunks between white space that cannot be read by themselves: mark-up, telephone numbers and fractions go on over it,
# and a full stop at the end may belong to an initial or, before a number, to an abbreviation.
_NEEDS_NEIGHBOURS = re.compile(
    rf".*<|.*\d\)?\Z|(?:{_names(_NUMBERED_ABBREVIATIONS)})\.\Z|(?!(?:[A-Za-z]{{2,}})?\.\Z).*\.\Z", re.DOTALL
)
_UNKNOWN = "\n"


def _replace(token: str) -> str:
    """One matched piece of text -> its token, lower-cased, as the Java program prints it."""
    if token.isalnum() and token.isascii():
        return token.lower()
    if token.lower() in _REPLACED:
        return _REPLACED[token.lower()]
    if len(token) < 4 and token[0] in "nN’" and _CURLY.fullmatch(token):
        return token.lower().replace("’", "'")
    if token.startswith("--") and len(token) < 5:
        return "--"
    if token.startswith("..."):
        return "..."
    token = token.lower().replace(" ", "\u00a0")
    return token.replace("(", "-lrb-").replace(")", "-rrb-") if len(token) > 1 else token


def tokenize_whole(caption: str) -> str:
    """What `tokenize_caption` gives, without its memory of chunks: all rules at every place of the caption."""
    tokens = map(_replace, _TOKEN.findall(caption))
    # emoji and other characters beyond the basic plane are unknown to the Java program, which drops them
    return " ".join(t for t in tokens if t not in PUNCTUATION and (len(t) > 1 or t <= "\uffff"))


@lru_cache(maxsize=1 << 16)
def _tokens_of_chunk(chunk: str) -> str:
    """The tokens of a chunk without white space, a blank behind each; `_UNKNOWN` if they depend on its neighbours."""
    if _NEEDS_NEIGHBOURS.match(chunk):
        return _UNKNOWN
    word = chunk[:-1] if chunk[-1] in ".," else chunk
    plain = word.isalpha() and word.isascii() and not _MAY_SPLIT.search(word)
    if plain and (chunk[-1] != "." or word.lower() not in _KEEPS_STOP):
        return f"{word.lower()} "
    tokens = tokenize_whole(chunk)
    return f"{tokens} " if tokens else ""


def tokenize_caption(caption: str) -> str:
    """The tokens of a caption, joined by single blanks, as coco-caption feeds them to BLEU, ROUGE-L and CIDEr-D.

    >>> tokenize_caption("A man's T-shirt (red), on St. John's Ave.")
    "a man 's t-shirt -lrb- red -rrb- on st. john 's ave."
    """
    tokens = "".join(map(_tokens_of_chunk, caption.split()))
    return tokenize_whole(caption) if _UNKNOWN in tokens else tokens[:-1]
