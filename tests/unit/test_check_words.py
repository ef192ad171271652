"""The check of words and sentences of `make lint`."""

import pytest
from check_words import find_long_guides, find_words, sentences


@pytest.fixture
def root(tmp_path):
    (tmp_path / "scripts").mkdir()
    return tmp_path


def test_a_former_word_is_named_with_the_fields(root):
    (root / "scripts" / "a.py").write_text("drop_rate = 1\nPictures, imagery\ninner_rate, picturesque = 1, 2\n")
    assert list(find_words(root)) == [
        "scripts/a.py:2: Pictures: say image",
        "scripts/a.py:3: inner_rate: say lr",
    ]


def test_a_guide_of_long_sentences_is_named(root, capsys):
    (root / "README.md").write_text("Short one. " + "word " * 50 + ".\n")
    (root / "CONTRIBUTING.md").write_text("Short one.\n")
    assert list(find_long_guides(root)) == ["README.md: sentences have 26.5 words on average; below 20 are wanted"]
    assert "CONTRIBUTING.md: 2.0 words a sentence, 1 sentences" in capsys.readouterr().out


def test_what_a_sentence_is():
    text = """# A heading. Of two

First [one](https://a.b/c. d). Then `a. b` at 3.5 s!

| a table. | with text. |

- an item
- another
  that goes on.

```
code. code.
```
"""
    assert sentences(text) == ["First one.", "Then code at 3.5 s!", "an item", "another that goes on."]
