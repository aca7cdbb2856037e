"""The report of a run: a page that stands alone and says what happened."""
from __future__ import annotations

import json
import sys
from html.parser import HTMLParser

import pytest

from av_td3_ros.cli.report import draw_all, session_facts, write_report

VOID = {'meta', 'img', 'br', 'link'}


class Page(HTMLParser):
    """The parts of a page that the tests look at; fails on tags that do not close in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if 'style' not in self.open:
            self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def words(self):
        return ' '.join(' '.join(self.text).split())


def read(path):
    return Page(path.read_text(encoding='utf-8'))


def metrics(success):
    return {'success': {'mean': success, 'low': success / 2, 'high': success},
            'cross_track_rms': {'mean': 0.3, 'low': 0.2, 'high': 0.4}}


@pytest.fixture
def run(tmp_path):
    run = tmp_path / 'my run'
    run.mkdir()
    (run / 'metrics.jsonl').write_text(json.dumps({
        'kind': 'learner', 'wall_time': 125.0, 'updates': 1234, 'transitions': 2468,
        'updates_per_second': 15.5, 'metrics': {'critic_loss': 0.5}}) + '\n')
    (run / 'evaluation.json').write_text(json.dumps({
        'map': 'town', 'seed': 1,
        'untrained': {'policy': 'version 0', 'episodes': [{}] * 4, 'metrics': metrics(0.0)},
        'learned': {'policy': 'version 9', 'episodes': [{}] * 4, 'metrics': metrics(0.75)},
        'pursuit': {'policy': 'pursuit', 'episodes': [{}] * 4, 'metrics': metrics(1.0)}}))
    (run / 'config.yaml').write_text('td3:\n  gamma: 0.95\n')
    return run


def test_the_page_says_what_came_out(run):
    words = read(write_report(run)).words
    assert 'On map town, the learned policy completes 75 % of the evaluation routes, ' \
           'the untrained policy 0 %, the pure-pursuit baseline 100 %.' in words
    assert '2,468' in words
    assert '1,234' in words
    assert '2:05' in words
    assert 'gamma: 0.95' in words
    assert '38 to 75' in words                  # the interval
    assert 'cross-track RMS [m]' in words


def test_everything_it_shows_lies_in_the_folder(run):
    draw_all(run)
    (run / 'drive.mp4').write_bytes(b'a video')
    (run / 'bag').mkdir()
    page = read(write_report(run))
    links = [attributes[key] for _, attributes in page.tags for key in ('src', 'href')
             if key in attributes]
    assert len(page.all('img')) == 6
    assert len(page.all('video')) == 1
    assert 'bag' in links
    for link in links:
        assert (run / link.split('#')[0]).exists(), f'{link} is not in the run folder'
    assert not {'script', 'link', 'iframe'} & {tag for tag, _ in page.tags}


def test_every_image_has_words_for_those_who_do_not_see_it(run):
    draw_all(run)
    alternatives = [image['alt'] for image in read(write_report(run)).all('img')]
    assert len(set(alternatives)) == 6
    assert all(len(text) > 20 for text in alternatives)


def test_it_fits_light_and_dark_and_small_screens(run):
    path = write_report(run)
    assert 'prefers-color-scheme: dark' in path.read_text()
    page = read(path)
    assert page.all('html') == [{'lang': 'en'}]
    assert any(meta.get('name') == 'viewport' for meta in page.all('meta'))


def test_text_from_outside_stays_text(run):
    attack = '<script>alert("&")</script>'
    (run / 'config.yaml').write_text(f'name: {attack}\n')
    evaluation = json.loads((run / 'evaluation.json').read_text())
    evaluation['map'] = attack
    evaluation['learned']['policy'] = attack
    evaluation[attack] = {'metrics': metrics(0.5)}
    (run / 'evaluation.json').write_text(json.dumps(evaluation))
    page = read(write_report(run, {'command': ['av-td3', attack], 'started': attack,
                                   'machine': attack, 'versions': {attack: attack}}))
    assert page.all('script') == []
    assert page.words.count('alert("&")') >= 8


def test_a_run_without_an_update_is_said_to_have_learned_nothing(run):
    evaluation = json.loads((run / 'evaluation.json').read_text())
    del evaluation['learned']
    (run / 'evaluation.json').write_text(json.dumps(evaluation))
    page = write_report(run).read_text()
    assert 'Nothing was learned' in page and 'not been evaluated' not in page


def test_a_run_that_has_nothing_yet_still_gets_a_page(tmp_path):
    words = read(write_report(tmp_path)).words
    assert 'has not been evaluated yet' in words
    assert tmp_path.name in words


def test_the_session_is_taken_from_the_folder_when_it_is_there(run):
    (run / 'session.json').write_text(json.dumps(session_facts(['av-td3', 'train', 'a b'])))
    words = read(write_report(run)).words
    assert "av-td3 train 'a b'" in words
    assert sys.version.split()[0] in words
    assert 'torch' in words


@pytest.mark.parametrize('name', ['session.json', 'evaluation.json'])
def test_a_broken_file_is_named(run, name):
    (run / name).write_text('{')
    with pytest.raises(ValueError, match=name):
        write_report(run)


def test_a_second_report_takes_the_place_of_the_first(run):
    first = write_report(run).read_text()
    (run / 'config.yaml').write_text('other: true\n')
    second = write_report(run).read_text()
    assert first != second
    assert sorted(path.name for path in run.iterdir()) == [
        'config.yaml', 'evaluation.json', 'metrics.jsonl', 'report.html']
