# /etc/profile sets PATH anew for login shells; what the user installed with npm comes first again.
PATH="$HOME/.pi/npm-global/bin:$HOME/.local/bin:$PATH"
