class Last(list):
    pass
import weakref
a = Last("abc")
finalizer = weakref.finalize(a, print, "finalized")
