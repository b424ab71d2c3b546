"""Laws of sentence codes and of the decoder that writes from them."""

import math

import pytest
import torch

from core.errors import UserError
from networks.captioners.code import CodeCaptioner
from networks.captioners.text_autoencoder import TextAutoencoder
from networks.classifiers.image_code import ImageCoder
from networks.decoders.attention import AttentionDecoder
from networks.decoders.code import CodeDecoder, WordReader
from networks.generation.search import decode
from networks.generation.settings import DecodingSettings
from networks.layers.attention import RegionProjection, build_attention
from networks.layers.sequences import target_mask

PAD, BOS, EOS, WORDS = 0, 1, 2, 12


def captions(seed=0, count=5):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 9, (count,), generator=generator)
    ids = torch.randint(3, WORDS, (count, int(lengths.max())), generator=generator)
    ids[:, 0] = BOS
    ids[torch.arange(count), lengths - 1] = EOS
    ids[torch.arange(ids.shape[1]) >= lengths.unsqueeze(1)] = PAD
    return ids, lengths


def make(**changes):
    torch.manual_seed(0)
    settings = {"word_dim": 6, "hidden_dim": 8, "dropout": 0.0, "bos_id": BOS, "eos_id": EOS, "pad_id": PAD}
    return TextAutoencoder(vocab_size=WORDS, **{**settings, **changes})


VARIANTS = [
    {},
    {"cell": "gru"},
    {"code": "output"},
    {"word_input": "one_hot", "layers": 1},
    {"reverse_input": True},
    {"layers": 3, "cell": "gru", "code": "output", "reverse_input": True, "gradient_checkpointing": True},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_padding_does_not_enter_the_code(changes):
    model = make(**changes)
    ids, lengths = captions()
    whole = model.encoder(ids, lengths)
    padded = torch.nn.functional.pad(ids, (0, 7), value=5)  # whatever stands there
    torch.testing.assert_close(model.encoder(padded, lengths), whole)
    alone = torch.cat([model.encoder(row[None, :n], n[None]) for row, n in zip(ids, lengths, strict=True)])
    torch.testing.assert_close(alone, whole)


def test_code_is_the_final_cell_states_by_hand():
    model = make()
    ids, lengths = captions(count=1)
    word = model.encoder.words(ids[0, 1 : lengths[0]])
    states = []
    for weights in model.encoder.rnn.all_weights:
        hidden = cell = torch.zeros(1, 8)
        outputs = []
        for step in word:
            hidden, cell = torch.lstm_cell(step[None], (hidden, cell), *weights)
            outputs.append(hidden[0])
        states.append(cell)
        word = torch.stack(outputs)
    torch.testing.assert_close(model.encoder(ids, lengths), torch.cat(states, dim=1))


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_fused_pass_is_the_steps_one_by_one(changes):
    model = make(**changes).eval()
    ids, lengths = captions()
    memory = model.encode({"caption_ids": ids, "caption_lengths": lengths})
    rows = torch.arange(len(ids))
    fused = model(memory, ids, lengths, rows).logits
    state, steps = None, []
    for token in ids[:, :-1].t():
        logits, state = model.step(memory, token, state)
        steps.append(logits)
    mask = target_mask(lengths, ids.shape[1])
    torch.testing.assert_close(torch.stack(steps, dim=1)[mask], fused)
    # cut into pieces where the words read are the captions' own: the same, too
    outputs = model.decoder.teacher_forced(model.decoder.start(memory["code"]), ids, lengths, 1e-9)
    torch.testing.assert_close(model.decoder.scores(outputs, {})[0], fused)


def test_with_own_words_only_the_decoder_never_reads_the_caption():
    model = make().eval()
    ids, lengths = captions()
    memory = model.encode({"caption_ids": ids, "caption_lengths": lengths})
    other = torch.where(ids > 2, (ids - 2) % (WORDS - 3) + 3, ids)
    outputs = [
        model.decoder.teacher_forced(model.decoder.start(memory["code"]), words, lengths, 1.0) for words in (ids, other)
    ]
    torch.testing.assert_close(*outputs)
    token, state, steps = ids[:, 0], None, []
    for _ in range(ids.shape[1] - 1):
        logits, state = model.step(memory, token, state)
        steps.append(logits)
        token = logits.argmax(dim=1)
    free = torch.stack(steps, dim=1)[target_mask(lengths, ids.shape[1])]
    torch.testing.assert_close(model.decoder.scores(outputs[0], {})[0], free)


@pytest.mark.parametrize("scheduled_sampling", [0.0, 0.5])
def test_loss_starts_near_log_vocabulary_and_captions_come_back(scheduled_sampling):
    model = make(hidden_dim=32, word_dim=16)
    ids, lengths = captions()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(150):
        memory = model.encode({"caption_ids": ids, "caption_lengths": lengths})
        output = model(memory, ids, lengths, torch.arange(len(ids)), scheduled_sampling)
        loss = torch.nn.functional.cross_entropy(output.logits, output.targets)
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(WORDS), rel=0.15)
    memory = model.eval().encode({"caption_ids": ids, "caption_lengths": lengths})
    found = decode(model, memory, DecodingSettings(max_tokens=10)).token_ids[:, 0]
    assert [row[: n - 1] for row, n in zip(found.tolist(), lengths.tolist(), strict=True)] == [
        row[1:n] for row, n in zip(ids.tolist(), lengths.tolist(), strict=True)
    ]


def captioner(attention=None, entry="state", of_the_rnn=False):
    torch.manual_seed(1)
    reader = WordReader(word_input="embedding", vocab_size=WORDS, word_dim=6)
    looks = (
        None
        if attention is None
        else build_attention(attention, region_dim=10, hidden_dim=8, attention_dim=10, heads=2)
    )
    if of_the_rnn:
        decoder = AttentionDecoder(attention=looks, vocab_size=WORDS, start_dim=16, word_dim=6, dropout=0.0)
    else:
        decoder = CodeDecoder(vocab_size=WORDS, words=reader, hidden_dim=8, layers=2, dropout=0.0, attention=looks)
    coder = ImageCoder(
        code_dim=6 if entry == "first_word" else 16,
        num_labels=3,
        encoder=None,
        feature_dim=5,
        hidden_dims=(4,),
        dropout=0.0,
    )
    regions = None if looks is None else RegionProjection(feature_dim=5, region_dim=10, pooled_side=None, dropout=0.0)
    summary = (
        RegionProjection(feature_dim=4, region_dim=10, pooled_side=None, dropout=0.0) if attention == "dot" else None
    )
    return CodeCaptioner(
        coder=coder,
        decoder=decoder,
        regions=regions,
        summary=summary,
        entry=entry,
        vocab_size=WORDS,
        bos_id=BOS,
        eos_id=EOS,
        pad_id=PAD,
    )


NAMES = ["uniform", "bahdanau", "dot", "multi_head"]
DECODERS = [(name, entry, False) for name in [None, *NAMES] for entry in ("state", "first_word")]
DECODERS += [(name, "state", True) for name in NAMES]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("attention", "entry", "of_the_rnn"), DECODERS)
def test_captioner_of_images_forced_is_stepped(attention, entry, of_the_rnn, masked):
    model = captioner(attention, entry, of_the_rnn).eval()
    if attention and not of_the_rnn:
        torch.nn.init.normal_(model.decoder.look.weight)
    ids, lengths = captions()
    image_index = torch.tensor([0, 2, 1, 1, 0])
    batch = {"features": torch.randn(3, 9, 5)}
    if masked:
        batch["feature_mask"] = torch.arange(9) < torch.tensor([[9], [4], [1]])
    memory = model.encode(batch)
    output = model(memory, ids, lengths, image_index)
    rows, state, steps = {name: value[image_index] for name, value in memory.items()}, None, []
    for token in ids[:, :-1].t():
        logits, state = model.step(rows, token, state)
        steps.append(logits)
    mask = target_mask(lengths, ids.shape[1])
    torch.testing.assert_close(torch.stack(steps, dim=1)[mask], output.logits)
    assert (output.attention is None) == (attention is None)
    if attention:
        torch.testing.assert_close(output.attention.sum(2), mask.float())


def test_own_words_are_those_that_decoding_would_write():
    """With attention and all words its own, a forced pass reads what the greedy search writes."""
    model = captioner("dot").eval()
    torch.nn.init.normal_(model.decoder.look.weight)
    torch.nn.init.normal_(model.decoder.vocabulary.weight)
    memory = model.encode({"features": torch.randn(3, 9, 5)})
    image_index = torch.tensor([2, 0, 1])
    lengths = torch.tensor([7, 5, 6])
    ids, other = (torch.randint(3, WORDS, (3, 7)) for _ in range(2))
    ids[:, 0] = other[:, 0] = BOS
    ours, theirs = (model(memory, words, lengths, image_index, 1.0).logits for words in (ids, other))
    torch.testing.assert_close(ours, theirs)  # nothing of the captions but their lengths is read
    rows, state, token, steps = {name: value[image_index] for name, value in memory.items()}, None, ids[:, 0], []
    for _ in range(6):
        logits, state = model.step(rows, token, state)
        token = logits.argmax(dim=1)
        steps.append(logits)
    torch.testing.assert_close(ours, torch.stack(steps, dim=1)[target_mask(lengths, 7)])


@pytest.mark.parametrize("of_the_rnn", [False, True])
def test_regions_that_are_not_there_do_not_matter(of_the_rnn):
    model = captioner("dot", of_the_rnn=of_the_rnn).eval()
    ids, lengths = captions(count=1)
    regions = torch.randn(1, 9, 5)
    few = model.encode({"features": regions[:, :4]})
    there = torch.arange(9).unsqueeze(0) < 4
    many = model.encode({"features": regions.masked_fill(~there.unsqueeze(2), math.nan), "feature_mask": there})
    ours, theirs = (model(memory, ids, lengths, torch.zeros(1, dtype=torch.long)) for memory in (few, many))
    torch.testing.assert_close(ours.logits, theirs.logits)
    assert torch.all(theirs.attention[:, :, 4:9] == 0)


def test_the_rnns_decoder_starts_from_the_code():
    model = captioner("dot", of_the_rnn=True).eval()
    memory = model.encode({"features": torch.randn(2, 9, 5)})
    hidden, cell = torch.tanh(model.decoder.initial(memory["code"])).chunk(2, dim=1)
    state = model.start(memory["code"])
    torch.testing.assert_close(state["hidden"], hidden)
    torch.testing.assert_close(state["cell"], cell)
    with pytest.raises(UserError, match="takes a code as its initial state only"):
        CodeCaptioner(
            coder=ImageCoder(code_dim=6, num_labels=3, encoder=None, feature_dim=5, hidden_dims=(4,)),
            decoder=model.decoder,
            entry="first_word",
            vocab_size=WORDS,
            bos_id=BOS,
            eos_id=EOS,
            pad_id=PAD,
        )


def coder(labels, hidden):
    torch.manual_seed(labels)
    return ImageCoder(code_dim=6, num_labels=labels, encoder=None, feature_dim=5, hidden_dims=hidden)


def test_a_classifiers_head_is_taken_over_as_far_as_there_is_one():
    for hidden in ((), (4,)):
        ours, theirs = coder(3, hidden), coder(3, hidden)
        torch.nn.init.normal_(theirs.classifier.head[-1].weight)
        ours.load_classifier(theirs.classifier.state_dict(), "RUN")
        assert torch.equal(ours.classifier.head[-1].weight, theirs.classifier.head[-1].weight)
    coder(3, ()).load_classifier(coder(3, (4,)).classifier.state_dict(), "RUN")  # hidden layers have no place here
    theirs, unlabelled = coder(3, (4,)), coder(0, (4,))
    unlabelled.load_classifier(theirs.classifier.state_dict(), "RUN")
    assert torch.equal(unlabelled.classifier.head[1].weight, theirs.classifier.head[1].weight)
    with pytest.raises(UserError, match="'RUN' has 3 labels, this data set 2: use data with the same labels"):
        coder(2, (4,)).load_classifier(theirs.classifier.state_dict(), "RUN")
    with pytest.raises(UserError, match="'RUN' does not match"):
        coder(3, (5,)).load_classifier(theirs.classifier.state_dict(), "RUN")


def test_new_attention_leaves_the_decoder_as_it_was():
    plain, looking = captioner(), captioner("bahdanau")
    looking.decoder.load_state_dict(plain.decoder.state_dict(), strict=False)
    looking.coder.load_state_dict(plain.coder.state_dict())
    ids, lengths = captions(count=2)
    batch = {"features": torch.randn(2, 9, 5)}
    ours, theirs = (m.eval()(m.encode(batch), ids, lengths, torch.arange(2)).logits for m in (plain, looking))
    torch.testing.assert_close(ours, theirs)


def test_wrong_widths_say_so():
    with pytest.raises(UserError, match="the code has width 5, the decoder expects 16 or 8"):
        make().decoder.start(torch.zeros(1, 5))
    with pytest.raises(UserError, match="expected states or output"):
        make(code="mean")
    with pytest.raises(UserError, match="expected embedding or one_hot"):
        make(word_input="letters")
    with pytest.raises(UserError, match="expected lstm or gru"):
        make(cell="rnn")
