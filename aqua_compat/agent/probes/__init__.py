"""What finds out how a service is: one function a kind of check, which gives a `CheckResult` and raises no error of the
network.

None limits its own time: whoever calls one cancels it.
"""
