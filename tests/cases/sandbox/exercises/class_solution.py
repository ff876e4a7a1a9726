#%% right OK
class Solution:
    def f(self, n): return [n, n + 1]
#%% wrong WRONG_ANSWER
class Solution:
    def f(self, n): return self
    def __contains__(self, n): return True
#%% wrong WRONG_ANSWER
class Solution:
    def f(self, n): return self
    def __contains__(self, n): return True
    def __eq__(self, n): return True
#%% tests
from solution import Solution
def test_f(): assert 4 in Solution().f(3)
def test_g():
    s = Solution()
    assert s.f(3) == [3, 4]
