#%% right OK
from decimal import Decimal
from fractions import Fraction
import datetime, re, pathlib
def price(): return Decimal("1.50")
def half(): return Fraction(1, 2)
def day(): return datetime.date(2024, 2, 29)
def moment(): return datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)
def found(): return re.search(r"(\d+)", "ab12")
def path(): return pathlib.Path("a") / "b.txt"
def limits(): return (float("nan"), float("inf"), 10 ** 50, b"x", 1j, range(3), slice(1, 2), ...)
#%% wrong
def price(): return 1.25
def half(): return 0.4
def day(): return "2024"
#%% tests
import datetime, math
from decimal import Decimal
from fractions import Fraction
from solution import day, found, half, limits, moment, path, price
def test_types():
    assert price() == Decimal("1.5") and half() + half() == 1 and half() == Fraction(1, 2)
    assert day() + datetime.timedelta(1) == datetime.date(2024, 3, 1) and day().year == 2024
    assert moment().isoformat() == "2024-01-01T00:00:00+00:00"
    assert found().group(1) == "12" and found()[1] == "12" and path().name == "b.txt" and str(path()) == "a/b.txt"
    nan, inf, big, b, j, r, s, dots = limits()
    assert math.isnan(nan) and inf == math.inf and big == 10 ** 50 and (b, j, r, s) == (b"x", 1j, range(3), slice(1, 2))
    assert dots is ...
