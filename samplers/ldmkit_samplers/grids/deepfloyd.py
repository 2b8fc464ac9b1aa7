"""The lists of timesteps that DeepFloyd published for its models, by their names."""

from __future__ import annotations

from typing import ClassVar, Literal

from ldmkit import Example, Grid, InputError, Process

_LISTS = {
    "fast27": ("999 800 799 600 599 500 400 399 377 355 333 311 288 266 244 222 200 199 177 155 133 111 88 66 44 22 0"),
    "smart27": (
        "999 976 952 928 905 882 858 857 810 762 715 714 572 429 428 286 285 238 190 143 142 118 95 71 47 24 0"
    ),
    "smart50": (
        "999 988 977 966 955 944 933 922 911 900 899 879 859 840 820 800 799 766 733 700 699 650 600 599 500 499 "
        "400 399 350 300 299 266 233 200 199 179 159 140 120 100 99 88 77 66 55 44 33 22 11 0"
    ),
    "smart100": (
        "999 995 992 989 985 981 978 975 971 967 964 961 957 956 951 947 942 937 933 928 923 919 914 913 908 903 "
        "897 892 887 881 876 871 870 864 858 852 846 840 834 828 827 820 813 806 799 792 785 784 777 770 763 756 "
        "749 742 741 733 724 716 707 699 698 688 677 666 656 655 645 634 623 613 612 598 584 570 569 555 541 527 "
        "526 505 484 483 462 440 439 396 395 352 351 308 307 264 263 220 219 176 132 88 44 0"
    ),
    "smart185": (
        "999 997 995 992 990 988 986 984 981 979 977 975 972 970 968 966 964 961 959 957 956 954 951 949 946 944 "
        "941 939 936 934 931 929 926 924 921 919 916 914 913 910 907 905 902 899 896 893 891 888 885 882 879 877 "
        "874 871 870 867 864 861 858 855 852 849 846 843 840 837 834 831 828 827 824 821 817 814 811 808 804 801 "
        "798 795 791 788 785 784 780 777 774 770 766 763 760 756 752 749 746 742 741 737 733 730 726 722 718 714 "
        "710 707 703 699 698 694 690 685 681 677 673 669 664 660 656 655 650 646 641 636 632 627 622 618 613 612 "
        "607 602 596 591 586 580 575 570 569 563 557 551 545 539 533 527 526 519 512 505 498 491 484 483 474 466 "
        "457 449 440 439 428 418 407 396 395 381 366 352 351 330 308 307 286 264 263 242 220 219 176 175 132 131 "
        "88 44 0"
    ),
    "super27": (
        "999 991 982 974 966 958 950 941 933 925 916 908 900 899 874 850 825 800 799 700 600 500 400 300 200 100 0"
    ),
    "super40": (
        "999 992 985 978 971 964 957 949 942 935 928 921 914 907 900 899 879 859 840 820 800 799 766 733 700 699 "
        "650 600 599 500 499 400 399 300 299 200 199 100 99 0"
    ),
    "super100": (
        "999 996 992 989 985 982 979 975 972 968 965 961 958 955 951 948 944 941 938 934 931 927 924 920 917 914 "
        "910 907 903 900 899 891 884 876 869 861 853 846 838 830 823 815 808 800 799 788 777 766 755 744 733 722 "
        "711 700 699 688 677 666 655 644 633 622 611 600 599 585 571 557 542 528 514 500 499 485 471 457 442 428 "
        "414 400 399 379 359 340 320 300 299 279 259 240 220 200 199 166 133 100 99 66 33 0"
    ),
}
TIMESTEPS = {name: tuple(map(int, text.split())) for name, text in _LISTS.items()}
"""Name -> the timesteps of a table of 1000, noisiest first. The number in a name is that of its steps."""


class DeepFloyd(Grid):
    """A published list of timesteps of a table of 1000; the run ends without noise. `steps` is the list's length.

    Args:
        named: `smart` lists spend steps evenly, `fast` and `super` lists where the noise is low.
    """

    examples: ClassVar[tuple[Example, ...]] = (Example(), Example({"named": "smart50"}))
    named: Literal["fast27", "smart27", "smart50", "smart100", "smart185", "super27", "super40", "super100"] = "fast27"

    @property
    def own_steps(self) -> int:
        return len(TIMESTEPS[self.named])

    def sigmas(self, process: Process, steps: int) -> list[float]:
        """Raises InputError: a process without a table of 1000 timesteps, or another number of steps."""
        times = TIMESTEPS[self.named]
        if process.timesteps != 1000:
            found = "no table" if process.timesteps is None else f"a table of {process.timesteps}"
            what = f"{self.named} is for 1000 timesteps, the process has {found}"
            raise InputError("grid-table", what, where="grid", fits="a process with a table of 1000 timesteps")
        if steps != len(times):
            what = f"{self.named} has {len(times)} timesteps, not {steps}"
            raise InputError("grid-length", what, where="steps", fits=f"{len(times)} steps")
        return [*(process.sigma_of_time(float(time)) for time in times), 0.0]
