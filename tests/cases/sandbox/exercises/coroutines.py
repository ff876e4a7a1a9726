#%% right INFRASTRUCTURE_ERROR
async def double(x): return 2 * x
#%% wrong
async def double(x): return 3 * x
#%% tests
import asyncio
from solution import double
def test_double(): assert asyncio.run(double(2)) == 4
