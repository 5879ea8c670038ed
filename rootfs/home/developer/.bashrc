# Yours. The image's prompt, history and completion are set up by /etc/bash.bashrc.
