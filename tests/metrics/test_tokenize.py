"""COCO tokens: rules by hand (each checked against the Java program), and the Java program itself where it is there."""

# ruff: noqa: RUF001 - typographic quotes are part of what is tested

import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from metrics.tokenize import PUNCTUATION, tokenize_caption, tokenize_whole

# left: caption; right: what pycocoevalcap 1.2 with Java 17 gives
RULES = [
    ("A Dog, a cat; and two: birds!", "a dog a cat and two birds"),
    ("  two  blanks\nand a line feed \t", "two blanks and a line feed"),
    ("", ""),
    (" . ", ""),
    ("the dog's and the dogs' toys", "the dog 's and the dogs toys"),
    ("I'm sure they've said she'll go, he'd", "i 'm sure they 've said she 'll go he 'd"),
    ("don't can't won't isn't DON'T", "do n't ca n't wo n't is n't do n't"),
    ("dog’s and don’t", "dog 's and do n't"),
    ("wouldn't've", "would n't 've"),
    ("we cannot see, gonna gotta wanna", "we can not see gon na got ta wan na"),
    ("cannot's cannotx gonnas", "cannot 's cannotx gonnas"),
    ("'tis the 'til '50s '90s rock 'n' roll", "'t is the 'til '50s '90s rock 'n' roll"),
    ("o'clock O'Brien ma'am hors d'oeuvre", "o'clock o'brien ma'am hors d'oeuvre"),
    ("y'all ol' fishin'", "y' all ol' fishin"),
    ("man's-best jack-o'-lantern", "man 's best jack-o lantern"),
    ("a t-shirt, black-and-white and 12-inch", "a t-shirt black-and-white and 12-inch"),
    ("x- -y z--w a---b", "x y z w a b"),
    ("and/or 1/2 either/", "and/or 1/2 either /"),
    ("22 3/4 street", "22\u00a03/4 street"),
    ("(555) 555-1234", "-lrb-555-rrb-\u00a0555-1234"),
    ("reads 11:44. at 5:54pm or 5pm", "reads 11:44 at 5:54 pm or 5pm"),
    ("1,000 and 3.5 and .5 and 50% and $5", "1,000 and 3.5 and .5 and 50 % and $ 5"),
    ("the #41 bus and #foo and @home", "the # 41 bus and #foo and @home"),
    ("corner of St. John's Ave. and Main St.", "corner of st. john 's ave. and main st."),
    ("Mr. Smith, Jr. etc. bros. corp.", "mr. smith jr. etc. bros. corp."),
    ("in Miss. I miss.", "in miss. i miss"),
    ("10 a.m. in the U.S. or U.S.A.", "10 a.m. in the u.s. or u.s.a."),
    ('letter "P." and A. clear vase', "letter p. and a. clear vase"),
    ("A person I. A hood", "a person i a hood"),
    ("no. no. 5", "no no. 5"),
    ("ready to bat.,", "ready to bat."),
    ("sidewalk.outside end.The wow!wow", "sidewalk.outside end.the wow!wow"),
    ("toilet,wash it;s .neck", "toilet wash it s neck"),
    ("wait... what . . . no .... x", "wait what no x"),
    ("really!! what?! no?? a!!! ok!", "really !! what ?! no ?? a !!! ok"),
    ("(left) [right] {x}", "-lrb- left -rrb- -lsb- right -rsb- -lcb- x -rcb-"),
    ("\"quoted\" 'single' “curly” ‘one’ ``tex''", "quoted single curly one tex"),
    ("at&t AT&T R&B x &amp; y &lt;", "at & t at&t r&b x & y <"),
    ("*star* a_b a+b x=y", "* star * a_b a + b x = y"),
    (":) :-( ;)", ":-rrb- :--lrb- ;-rrb-"),
    ("http://www.x.com a@b.com www.foo.com", "http://www.x.com a@b.com www.foo.com"),
    ('<b> <a href="x"> a < b', '<b> <a\u00a0href="x"> a < b'),
    ("café naïve €5 £3 5¢ ½ …", "café naïve $ 5 # 3 5 cents 1/2"),
    ("日本 русский x😀y ☺ ©", "日本 русский x y ☺ ©"),
]


@pytest.mark.parametrize(("caption", "tokens"), RULES)
def test_rules_of_the_java_program(caption, tokens):
    assert tokenize_caption(caption) == tokens


def test_no_removed_token_survives_and_tokens_are_lower_case():
    for caption, _ in RULES:
        words = tokenize_caption(caption).split(" ")
        assert not PUNCTUATION & set(words)
        assert all(word == word.lower() for word in words)


def test_long_input_takes_linear_time():
    assert len(tokenize_caption("a" * 200_000)) == 200_000
    assert tokenize_caption("ab, " * 50_000).count("ab") == 50_000


# what can begin or go on over white space, and what merely looks like it
EDITS = [
    *"aeimnoPSAX059 ,.;:!?'\"’`()<>-_/&@#+*=~%$£½…—\u00a0\u2028\n\x1cßİ日😀٣",
    *(
        " no. ",
        " Fig.",
        "Dr. ",
        " P. ",
        " A ",
        ". The ",
        "cannot",
        " gonna.",
        "n't",
        "’ll",
        " 1/2",
        "(555) ",
        "555-1234",
    ),
    *("+", "<b ", "&amp;", "http://", " x@y.z", "...", "--", " a.m.", " St.", "mass. ", "e.g.", "O'", "end.The"),
]


def _edited(captions: list[str], count: int) -> list[str]:
    draw = random.Random(0)
    edited = []
    for _ in range(count):
        letters = list(draw.choice(captions))
        for _ in range(draw.randint(1, 4)):
            place = draw.randrange(len(letters) + 1)
            letters[place : place + draw.randint(0, 1)] = [draw.choice(EDITS)]
        edited.append("".join(letters))
    return edited


def test_chunks_between_white_space_are_read_as_in_the_whole_caption():
    captions = [caption for caption, _ in RULES]
    for caption in [*captions, *_edited(captions, 20_000), *_edited([""], 10_000)]:
        assert tokenize_caption(caption) == tokenize_whole(caption), caption


def _java_tokens(captions: list[str], tmp_path: Path) -> list[str]:
    package = pytest.importorskip("pycocoevalcap", reason="pycocoevalcap is not installed").__path__[0]
    if shutil.which("java") is None:
        pytest.skip("there is no java on the PATH")
    jar = next((Path(package) / "tokenizer").glob("stanford-corenlp-*.jar"))
    source = tmp_path / "captions.txt"
    source.write_text("\n".join(caption.replace("\n", " ") for caption in captions), encoding="utf-8")
    command = ["java", "-Dfile.encoding=UTF-8", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
    done = subprocess.run([*command, "-preserveLines", "-lowerCase", str(source)], capture_output=True, check=True)
    lines = done.stdout.decode().split("\n")[: len(captions)]
    return [" ".join(word for word in line.rstrip().split(" ") if word not in PUNCTUATION) for line in lines]


def test_rules_are_what_java_says(tmp_path):
    captions = [caption for caption, _ in RULES if caption]
    assert [tokenize_caption(caption) for caption in captions] == _java_tokens(captions, tmp_path)


@pytest.fixture(scope="module")
def real_captions(data_root):
    captions = [
        a["caption"] for a in json.loads((data_root / "coco_eval/captions_val2017.json").read_text())["annotations"]
    ]
    captions += [
        line.split("\t", 1)[1] for line in (data_root / "flickr8k/Flickr8k.token.txt").read_text().splitlines()
    ]
    for name in ("ucm", "sydney"):
        images = json.loads((data_root / name / "dataset.json").read_text())["images"]
        captions += [sentence["raw"] for image in images for sentence in image["sentences"]]
    captions = list(dict.fromkeys(captions))
    assert len(captions) > 60_000
    return captions


def test_chunks_of_real_captions_are_read_as_in_the_whole_caption(real_captions):
    captions = [*real_captions, *_edited(real_captions, 20_000)]
    assert not [caption for caption in captions if tokenize_caption(caption) != tokenize_whole(caption)]


def test_real_captions_agree_with_java(real_captions, tmp_path):
    captions = real_captions
    java = _java_tokens(captions, tmp_path)
    different = [(c, j) for c, j in zip(captions, java, strict=True) if tokenize_caption(c) != j]
    assert not different, different[:5]
