#%% right INFRASTRUCTURE_ERROR
def count(path):
    with open(path) as f: return sum(1 for _ in f)
#%% wrong
def count(path): return 0
#%% tests
from solution import count
def test_count(tmp_path):
    (tmp_path / "a.txt").write_text("a\nb\n")
    assert count(str(tmp_path / "a.txt")) == 2
