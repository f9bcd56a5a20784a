"""Page in the browser: play recordings on other instruments without a terminal."""
