import asyncio
async def main():
    asyncio.ensure_future(later())
    await asyncio.sleep(0)
    print("main")
async def later():
    try:
        await asyncio.sleep(10)
    finally:
        print("cancelled")
asyncio.run(main())
